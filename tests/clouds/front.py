"""A cloud's registry host, before the real registry of tests/services.sh.

The engine reaches it as it reaches the cloud's: by the real name (a line in /etc/hosts), over TLS (a certificate in
/etc/docker/certs.d), with the login that the cloud gave out. Below it lies a real registry; the account's repositories
stand there under a prefix of their own.
"""

import base64
import contextlib
import fcntl
import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import docker
from docker.errors import APIError

from tests.clouds.gateway import Gateway, Request, Response, Tally, forward

HOSTS = Path("/etc/hosts")
ENGINE_SECONDS = 60.0
CERTIFICATES = Path("/etc/docker/certs.d")
REGISTRY = os.environ.get("FTLAUNCH_TEST_REGISTRY", "127.0.0.1:5000")
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json"
)

Allow = Callable[[str, str, str, str], bool]
"""Whether (user, password) may do (operation, repository); a bearer's token comes without a user."""

OPERATIONS = (
    ("check_layer", "HEAD", r"/v2/(.+)/blobs/sha256:\w+"),
    ("get_layer", "GET", r"/v2/(.+)/blobs/sha256:\w+"),
    ("start_upload", "POST", r"/v2/(.+)/blobs/uploads/"),
    ("upload_part", "PATCH", r"/v2/(.+)/blobs/uploads/[^/]+"),
    ("finish_upload", "PUT", r"/v2/(.+)/blobs/uploads/[^/]+"),
    ("put_manifest", "PUT", r"/v2/(.+)/manifests/[^/]+"),
    ("get_manifest", "GET", r"/v2/(.+)/manifests/[^/]+"),
    ("get_manifest", "HEAD", r"/v2/(.+)/manifests/[^/]+"),
)


class Front:
    """One registry host of one cloud."""

    def __init__(self, gateway: Gateway, host: str, prefix: str, allow: Allow) -> None:
        """``prefix``: the path below which the account's repositories lie in the real registry."""
        self.host, self.prefix, self.allow = host, prefix, allow
        self.received = Tally()
        gateway.route(re.escape(host), self.serve)

    def local(self, repository: str) -> str:
        """The real registry's own name of a repository, which the engine can pull from."""
        return f"{REGISTRY}/{self.prefix}/{repository}"

    def digest(self, repository: str, reference: str) -> str | None:
        """Digest of the manifest of a tag or digest; None if it is not there."""
        url = f"http://{REGISTRY}/v2/{self.prefix}/{repository}/manifests/{reference}"
        request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFESTS})
        try:
            with _direct().open(request, timeout=10) as answer:
                return answer.headers["Docker-Content-Digest"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def tags(self, repository: str) -> list[str]:
        url = f"http://{REGISTRY}/v2/{self.prefix}/{repository}/tags/list"
        try:
            with _direct().open(url, timeout=10) as answer:
                return json.load(answer)["tags"] or []
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise

    def forget(self, repository: str) -> None:
        """Take all manifests of a repository away; layers that are there stay known by their digest, as they would in
        a registry that was used yesterday."""
        for tag in self.tags(repository):
            digest = self.digest(repository, tag)
            url = f"http://{REGISTRY}/v2/{self.prefix}/{repository}/manifests/{digest}"
            with contextlib.suppress(urllib.error.HTTPError):
                _direct().open(urllib.request.Request(url, method="DELETE"), timeout=10).close()

    def serve(self, request: Request) -> Response:
        kind, _, login = request.headers.get("Authorization", "").partition(" ")
        if kind not in ("Basic", "Bearer"):
            return _refusal(401, "UNAUTHORIZED", [("WWW-Authenticate", f'Basic realm="https://{self.host}/"')])
        user, password = "", login
        if kind == "Basic":
            user, _, password = base64.b64decode(login).decode().partition(":")
        operation, repository = _operation(request)
        if not self.allow(user, password, operation, repository):
            return _refusal(403, "DENIED", [])
        request.pieces = self._counted(request.pieces)
        path = _prefixed(request.path, self.prefix) if repository else request.path
        response = forward(request, _address(REGISTRY), path, REGISTRY)
        if operation == "check_layer" and response.status == 404 and self._found_elsewhere(path):
            response = forward(request, _address(REGISTRY), path, REGISTRY)
        response.headers = [
            (name, self._outward(value) if name.lower() == "location" else value) for name, value in response.headers
        ]
        return response

    def _found_elsewhere(self, path: str) -> bool:
        """Take a layer over that another cloud's tests sent: the image's large ones take a minute each time else."""
        repository, _, digest = path.removeprefix("/v2/").rpartition("/blobs/")
        with _direct().open(f"http://{REGISTRY}/v2/_catalog?n=1000", timeout=10) as answer:
            others = set(json.load(answer)["repositories"]) - {repository}
        for other in sorted(others):
            url = f"http://{REGISTRY}/v2/{repository}/blobs/uploads/?mount={digest}&from={other}"
            with _direct().open(urllib.request.Request(url, method="POST"), timeout=10) as answer:
                if answer.status == 201:
                    return True
        return False

    def _outward(self, location: str) -> str:
        parts = urlsplit(location)
        path = parts.path.replace(f"/v2/{self.prefix}/", "/v2/", 1)
        return f"https://{self.host}{path}" + (f"?{parts.query}" if parts.query else "")

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.received.add(len(piece))
            yield piece


def _operation(request: Request) -> tuple[str, str]:
    path = urlsplit(request.path).path
    for name, method, pattern in OPERATIONS:
        match = re.fullmatch(pattern, path)
        if match and request.method == method:
            return name, match[1]
    return ("login", "") if path == "/v2/" else (f"{request.method} {path}", "")


def _prefixed(path: str, prefix: str) -> str:
    path = path.replace("/v2/", f"/v2/{prefix}/", 1)
    return re.sub(r"([?&]from=)", rf"\g<1>{prefix}%2F", path)


def _refusal(status: int, code: str, headers: list[tuple[str, str]]) -> Response:
    body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
    return Response(status, [("Content-Type", "application/json"), *headers], body)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


def _direct() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextlib.contextmanager
def known_to_engine(gateway: Gateway, hosts: list[str], address: str) -> Iterator[None]:
    """While this lasts the engine of this machine reaches these registry hosts at a loopback address of ours."""
    mark = f"# loopback cloud {os.getpid()}"
    gateway.listen_tls(address)
    for host in hosts:
        folder = CERTIFICATES / host
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_bytes(gateway.authority.file.read_bytes())
    left = tuple(f"{address} {host} # loopback cloud " for host in hosts)  # by a session that was killed
    _edit_hosts(
        lambda lines: [
            *(line for line in lines if not line.startswith(left)),
            *(f"{address} {host} {mark}" for host in hosts),
        ]
    )
    try:
        _wait_for_engine(hosts)
        yield
    finally:
        _edit_hosts(lambda lines: [line for line in lines if not line.endswith(mark)])
        for host in hosts:
            (CERTIFICATES / host / "ca.crt").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (CERTIFICATES / host).rmdir()


def _wait_for_engine(hosts: list[str]) -> None:
    """The engine reads /etc/hosts again some seconds after it last did, for whichever cloud that was. It is asked for
    an image at a port of these addresses that nobody listens at: once it is refused there, it knows the way."""
    deadline = time.monotonic() + ENGINE_SECONDS
    with contextlib.closing(docker.from_env()) as engine:
        for host in hosts:
            while not _refused(engine, host):
                assert time.monotonic() < deadline, f"the engine does not find {host} at the address in {HOSTS}"
                time.sleep(0.3)


def _refused(engine: docker.DockerClient, host: str) -> bool:
    try:
        engine.images.get_registry_data(f"{host}:1/any")
    except APIError as error:
        return "connection refused" in str(error)
    return False


def _edit_hosts(change: Callable[[list[str]], list[str]]) -> None:
    with HOSTS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = [line for line in file.read().splitlines() if not _left_over(line)]
        file.seek(0)
        file.write("".join(f"{line}\n" for line in change(lines)))
        file.truncate()


def _left_over(line: str) -> bool:
    """A line of a session that was killed."""
    match = re.search(r"# loopback cloud (\d+)$", line)
    return bool(match) and not Path(f"/proc/{match[1]}").exists()
