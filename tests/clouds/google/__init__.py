"""A loopback Google Cloud: one project in one region.

Cloud Storage is an emulator's, with the preconditions that it lacks and the mount of `/gcs`; Artifact Registry is a
real registry behind the region's host; Vertex AI's control plane checks each request with Google's own message types
and really runs the image; tokens, Cloud Logging, Service Usage, Secret Manager and IAM are ours, of what is used of
them. Every call is recorded with the permissions that it needs, and refused where the caller has them not.
"""

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.clouds.containers import Network
from tests.clouds.front import Front, known_to_engine
from tests.clouds.gateway import Request, Response
from tests.clouds.google import billing, permissions
from tests.clouds.google.answers import Refused, json_answer
from tests.clouds.google.buckets import Buckets
from tests.clouds.google.custom_jobs import CustomJobs
from tests.clouds.google.logs import Logs
from tests.clouds.google.notebooks import Notebooks
from tests.clouds.google.services import Accounts, Repositories, Secrets, Services
from tests.clouds.google.tokens import Tokens
from tests.clouds.loopback import Loopback
from training_image.contracts import VERTEX

ENGINE_ADDRESS = "127.61.13.8"
"""Where the engine of this machine finds the registry's host: a loopback address that is used for nothing else."""


@dataclass(frozen=True)
class Call:
    who: str
    """E-mail address of the account whose token it carried."""
    needed: tuple[str, ...]
    """IAM permissions."""
    method: str
    url: str
    body: bytes
    """Of calls that carry no file."""


class Google(Loopback):
    project = "loopback-project"
    number = "123456789012"
    region = "us-central1"
    network = Network("ftlaunch-loopback-google", "169.254.171.2")

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(folder, stack)
        self.open_network(self.network, stack)
        self.grace_seconds = float(VERTEX.grace_seconds)
        self.calls: list[Call] = []
        self.used: set[tuple[str, str]] = set()
        """(account, permission) of what was done for the jobs, or at the registry."""
        self._lock = threading.Lock()
        self.tokens = Tokens(self)
        self.buckets = Buckets(folder / "gcs", self.number, stack)
        self.logs = Logs(self)
        self.services, self.secrets, self.accounts = Services(self), Secrets(self), Accounts(self)
        self.repositories = Repositories(self)
        self.front = Front(
            self.gateway, f"{self.region}-docker.pkg.dev", f"loopback-{self.number}", self.repositories.allow
        )
        self.custom_jobs = CustomJobs(self)
        stack.callback(self.custom_jobs.close)
        self.notebooks = Notebooks(self)
        stack.callback(self.notebooks.close)
        self.runtime_image = ""
        """The image of the runtimes that notebooks are executed in; a test that needs one builds it."""
        self.hosts = {
            "storage.googleapis.com": self.buckets.serve,
            "logging.googleapis.com": self.logs.serve,
            "serviceusage.googleapis.com": self.services.serve,
            "secretmanager.googleapis.com": self.secrets.serve,
            "iam.googleapis.com": self.accounts.serve,
            "artifactregistry.googleapis.com": self.repositories.serve,
            f"{self.region}-aiplatform.googleapis.com": self._serve_vertex,
        }
        self.gateway.route(r"oauth2\.googleapis\.com", self.tokens.serve)
        catalog = billing.catalog(
            allowed=lambda request: bool(self.tokens.owner(request.headers.get("Authorization", "")))
        )
        self.gateway.route(re.escape(billing.HOST), catalog)
        for host in self.hosts:
            self.gateway.route(host.replace(".", r"\."), self._serve)
        stack.enter_context(known_to_engine(self.gateway, [self.front.host], ENGINE_ADDRESS))

    def environment(self) -> dict[str, str]:
        """Google's own tools are kept from the user's login, and from asking where they run, too."""
        return super().environment() | {"CLOUDSDK_CONFIG": str(self.folder / "no-gcloud"), "NO_GCE_CHECK": "true"}

    def _serve(self, request: Request) -> Response:
        try:
            response = self._answer(request)
        except Refused as refused:
            return refused.answer()
        return self.cut(response)

    def _logged_in(self, request: Request) -> bool:
        return self.tokens.owner(request.headers.get("Authorization", "")) is not None

    def _serve_vertex(self, request: Request) -> Response:
        return (self.notebooks if "/notebook" in request.path else self.custom_jobs).serve(request)

    def _answer(self, request: Request) -> Response:
        who = self.tokens.owner(request.headers.get("Authorization", ""))
        needed = tuple(permissions.needed(request))
        carried = b"" if "upload" in request.path else request.body
        with self._lock:
            self.troubles.calls += 1
            odd = self.troubles.calls % 2
            self.calls.append(Call(who or "", needed, request.method, f"{request.host}{request.path}", carried))
        if who is None or self.troubles.expired:
            raise Refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if self.troubles.throttle and odd:
            raise Refused(
                429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Requests' and limit 'per minute'"
            )
        for permission in needed:
            self.require(who, permission)
        return self.hosts[request.host](request) or json_answer({})

    def require(self, who: str, permission: str) -> None:
        if not self.accounts.may(who, permission):
            self.denied.append((who, permission))
            raise Refused(403, "PERMISSION_DENIED", f"Permission '{permission}' denied for {who}")


@contextlib.contextmanager
def loopback_google(folder: Path) -> Iterator[Google]:
    """A whole project, for as long as this lasts."""
    with contextlib.ExitStack() as stack:
        yield Google(folder, stack)
