"""A loopback Azure: one subscription with one Azure ML workspace in one region, its storage, registry and key vault.

Blobs are Azurite's, images those of a real registry; the resource manager, jobs, run history and MLflow, Key Vault and
Entra's tokens are ours. Request bodies are held against azure-ai-ml's own models of the wire, every call against the
caller's role.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.clouds.azure.answers import Refused, error
from tests.clouds.azure.arm import Arm
from tests.clouds.azure.codes import Codes
from tests.clouds.azure.entra import HOST as LOGIN
from tests.clouds.azure.entra import Entra
from tests.clouds.azure.history import History
from tests.clouds.azure.jobs import Jobs
from tests.clouds.azure.quotas import Quotas
from tests.clouds.azure.registry import Registry
from tests.clouds.azure.rights import Rights
from tests.clouds.azure.storage import Storage
from tests.clouds.azure.vault import Vault
from tests.clouds.containers import Network
from tests.clouds.front import known_to_engine
from tests.clouds.gateway import Request, Response, Serve
from tests.clouds.loopback import Loopback

ENGINE_ADDRESS = "127.61.13.29"
"""Where the engine of this machine finds the registry's host: a loopback address that is used for nothing else."""
MSI_PORT = 46808
JOB = "the job's managed identity"


@dataclass(frozen=True)
class Call:
    method: str
    url: str
    body: bytes
    """Of calls that carry no file."""


class Azure(Loopback):
    tenant = "72f988bf-0000-4000-8000-2d7cd011db47"
    subscription = "6560575d-0000-4000-8000-cafe00000007"
    group, workspace, region = "team", "tuning", "eastus"
    network = Network("ftlaunch-loopback-azure", "169.254.172.2")

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(folder, stack)
        self.open_network(self.network, stack)
        self.gateway.listen_plain(self.network.gateway, MSI_PORT, self._managed_identity)
        self.msi = f"http://{self.network.gateway}:{MSI_PORT}/msi/token"
        self.identity = "33333333-3333-3333-3333-333333333333"
        self._identity_keys: set[str] = set()
        self.grace_seconds = 30.0
        self.calls: list[Call] = []
        self.rights = Rights(self.denied)
        self.entra = Entra(self.tenant)
        self.gateway.route(re.escape(LOGIN), self.entra.serve)
        self.storage = Storage(self, stack)
        self.vault = Vault(self)
        self.registry = Registry(self)
        self.quotas = Quotas(self)
        self.codes = Codes(self)
        self.jobs = Jobs(self)
        stack.callback(self.jobs.close)
        self.history = History(self)
        self.arm = Arm(self)
        self.rights.assign(JOB, "Key Vault Secrets User")
        self.gateway.routes = [(host, self._recorded(serve)) for host, serve in self.gateway.routes]
        stack.enter_context(known_to_engine(self.gateway, [self.registry.host], ENGINE_ADDRESS))

    @property
    def scope(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
        )

    def path(self, uri: str):
        """Container client and path of an address in a datastore."""
        found = re.fullmatch(r"azureml://datastores/(\w+)/paths/(.+?)/?", uri)
        if found is None or found[1] != "workspaceblobstore":
            raise Refused(400, "ValidationError", f"{uri} is in no datastore of this workspace")
        return self.storage.blobs, found[2]

    def seconds_of(self, body: dict) -> float | None:
        """The job's timeout."""
        told = (body.get("limits") or {}).get("timeout")
        if told is None:
            return None
        import isodate

        return isodate.parse_duration(told).total_seconds()

    def identity_key(self, told: dict | None) -> str | None:
        """A machine's key to its managed identity, where the job acts as it."""
        if told is None or told["identityType"] != "Managed":
            return None
        key = secrets.token_hex(16)
        self._identity_keys.add(key)
        return key

    def _managed_identity(self, request: Request) -> Response:
        """What a machine gets at MSI_ENDPOINT."""
        query = parse_qs(urlsplit(request.path).query)
        if request.headers.get("secret") not in self._identity_keys or query.get("api-version") != ["2017-09-01"]:
            return Response(400, [], b'{"error": "invalid_request"}')
        resource = query["resource"][0].rstrip("/")
        told = {"access_token": self.entra.token(JOB, resource), "expires_on": "4102444800", "resource": resource}
        return Response(200, [("Content-Type", "application/json")], json.dumps(told).encode())

    def _recorded(self, serve: Serve) -> Serve:
        """The same server, whose calls are written down; blobs and layers of images are not."""

        def record(request: Request) -> Response:
            carried = request.host == self.storage.host or request.path.startswith("/v2/")
            self.calls.append(Call(request.method, f"{request.host}{request.path}", b"" if carried else request.body))
            return serve(request)

        return record

    def cut(self, response: Response) -> Response:
        return super().cut(response) if response.status in (200, 201) else response

    def trouble_for(self, request: Request) -> Response | None:
        troubles = self.troubles
        troubles.calls += 1
        if troubles.expired:
            return error(401, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than now.")
        if troubles.throttle and troubles.calls % 2:
            blobs = request.host == self.storage.host
            refused = (
                error(503, "ServerBusy", "The server is busy.")
                if blobs
                else error(429, "TooManyRequests", "Slow down.")
            )
            refused.headers.append(("Retry-After", "0"))
            return refused
        return None


@contextlib.contextmanager
def loopback_azure(folder: Path) -> Iterator[Azure]:
    """A whole subscription, for as long as this lasts."""
    with contextlib.ExitStack() as stack:
        yield Azure(folder, stack)
