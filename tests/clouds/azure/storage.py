"""The workspace's storage account: Azurite, before it the check of who asks and what that role may."""

import base64
import contextlib
import datetime
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    generate_blob_sas,
    generate_container_sas,
)

from tests.clouds.azure.answers import error
from tests.clouds.gateway import Request, Response, Tally, forward

AUDIENCES = ("https://storage.azure.com", "https://storage.azure.com/")
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
FOLDER = Path(os.environ.get("FTLAUNCH_SERVICES_DIR", "/var/lib/ftlaunch-services")) / "azurite"
LOGS = "azureml"
"""The container with the log files of all jobs (the datastore ``workspaceartifactstore``)."""


class Storage:
    account = "ftlaunchblobs"
    container = "azureml-blobstore-0123abcd"

    def __init__(self, cloud, stack: contextlib.ExitStack) -> None:
        self.cloud = cloud
        self.host = f"{self.account}.blob.core.windows.net"
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.received, self.sent = Tally(), Tally()
        self.address = ("localhost", _free_port())
        stack.callback(self._start().kill)
        self.tls = ssl.create_default_context(cafile=str(cloud.authority.file))
        address = f"https://localhost:{self.address[1]}/{self.account}"
        # past every check: what the service itself does, and what tests look at
        self.service = BlobServiceClient(
            address, self.key, connection_verify=str(cloud.authority.file), proxies={"https": ""}, retry_total=2
        )
        # Before the client is asked, which pauses for a quarter of a minute where nothing listens yet.
        self._wait(lambda: socket.create_connection(self.address, timeout=2).close())
        for name in (self.container, LOGS):
            self._wait(lambda name=name: self.service.create_container(name))
        self.blobs = self.service.get_container_client(self.container)
        self.logs = self.service.get_container_client(LOGS)
        cloud.gateway.route(self.host.replace(".", r"\."), self.serve)

    def signed(self, container: str, name: str) -> str:
        """An address with a signature that lets anyone read for a while."""
        allowed = BlobSasPermissions(read=True)
        sas = generate_blob_sas(
            self.account, container, name, account_key=self.key, permission=allowed, expiry=_in_an_hour()
        )
        return f"https://{self.host}/{container}/{name}?{sas}"

    def opened(self, container: str) -> tuple[str, str]:
        """The address of a container, made if it was not there; and one with a signature that lets anyone read, write
        and list there for a while."""
        with contextlib.suppress(ResourceExistsError):
            self.service.create_container(container)
        allowed = ContainerSasPermissions(read=True, write=True, list=True)
        sas = generate_container_sas(
            self.account, container, account_key=self.key, permission=allowed, expiry=_in_an_hour()
        )
        address = f"https://{self.host}/{container}"
        return address, f"{address}?{sas}"

    def serve(self, request: Request) -> Response:
        if trouble := self.cloud.trouble_for(request):
            return trouble
        query = parse_qs(urlsplit(request.path).query)
        if "sig" not in query:
            principal = self.cloud.entra.principal(request.headers.get("Authorization"), *AUDIENCES)
            if principal is None:
                return error(401, "InvalidAuthenticationInfo", "Server failed to authenticate the request.")
            action = _action(request, query)
            if not self.cloud.rights.allowed(principal, action):
                return error(403, "AuthorizationPermissionMismatch", f"{principal} is not authorized to {action}.")
        if request.method == "PUT":
            self.received.add(int(request.headers.get("Content-Length") or 0))
        response = forward(request, self.address, tls=self.tls)
        if request.method == "GET" and "comp" not in query:
            self.sent.add(int(dict(response.headers).get("Content-Length") or 0))
        return self.cloud.cut(response)

    def _start(self) -> subprocess.Popen:
        certificate = self.cloud.authority.folder / "localhost.pem"
        command = [
            str(azurite()),
            *("--blobHost", "127.0.0.1", "--blobPort", str(self.address[1]), "--oauth", "basic"),
            *("--cert", str(certificate), "--key", str(certificate), "--location", str(self.cloud.folder / "azurite")),
            *("--silent", "--skipApiVersionCheck", "--disableTelemetry"),
        ]
        environment = {**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}
        with (self.cloud.folder / "azurite.log").open("wb") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _wait(self, call) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                return call()
            except Exception:
                if time.monotonic() > deadline:
                    raise AssertionError((self.cloud.folder / "azurite.log").read_text()) from None
                time.sleep(0.2)


def azurite() -> Path | None:
    """The program that tests/services.sh installs, or another on the path."""
    here = FOLDER / "node_modules" / ".bin" / "azurite-blob"
    found = str(here) if here.exists() else shutil.which("azurite-blob")
    return Path(found) if found else None


def _in_an_hour() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _action(request: Request, query: dict) -> str:
    """The data action of a blob request, by the service's own table."""
    on_container = query.get("restype") == ["container"]
    if on_container and query.get("comp") != ["list"]:
        return f"{CONTAINERS}/{'read' if request.method in ('GET', 'HEAD') else 'write'}"
    names = {"GET": "read", "HEAD": "read", "DELETE": "delete"}
    return f"{BLOBS}/{names.get(request.method, 'write')}"
