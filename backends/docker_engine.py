"""What `backends.docker` asks of a container engine: containers, volumes and archives, with errors that say what to do.

All goes over the engine's API, nothing over this machine's file system, so that a remote engine works the same.
The docker package is imported when a client is made, and not before.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.interface import BackendError, Json, Reason

START_ENGINE = (
    "start one (Docker Desktop, `systemctl start docker`, or as root `dockerd &`), point DOCKER_HOST at one,"
    " or run without a container: --backend local"
)
NO_RIGHT = "this user may not use the Docker engine"
JOIN_GROUP = "join the group docker (`sudo usermod -aG docker $USER`), or use a rootless engine"
LABEL = "ftlaunch.job"
Content = Path | bytes | Iterable[bytes] | None
"""Of a file: where it lies, all of it, or in pieces that come to the size told; None for a folder."""
Member = tuple[tarfile.TarInfo, Content]
"""A file or folder of an archive."""
CHUNK = 1 << 20
SECONDS = 60
"""Longest wait for the next word of an answer."""
ASK_ENGINE = "`docker info` shows how it stands"
API = "1.40"
"""Lowest version of the engine's API that is needed (Docker 19.03: device requests)."""

_DECIDING = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "HOME")
"""Environment variables that decide which engine it is."""
# Regular expressions over the engine's own words, with what they mean.
_SAID: tuple[tuple[str, str, str, Reason], ...] = (
    (
        "no space left on device",
        "the engine's disk is full",
        "free space there (`docker system df` shows what takes it, `docker system prune` frees it)",
        Reason.UNKNOWN,
    ),
    (
        "could not select device driver",
        "the engine cannot give the container a GPU",
        "install the NVIDIA container toolkit on the engine's machine, or set backends.docker.gpu: never",
        Reason.NO_CAPACITY,
    ),
    (
        "invalid reference format",
        "backends.docker.image is no name of an image",
        "write it as [host/]path[:tag], in lower case",
        Reason.BAD_IMAGE,
    ),
    ("no such image", "the engine has no such image", "ftlaunch image build", Reason.BAD_IMAGE),
    (
        "unexpected eof|connection reset by peer|i/o timeout|tls handshake timeout",
        "the engine lost its connection",
        "check the network of the engine's machine and try again; what has arrived is not fetched again",
        Reason.UNKNOWN,
    ),
    (
        "network .* not found",
        "the engine has no such network",
        "`docker network ls` shows those it has; correct backends.docker.network",
        Reason.UNKNOWN,
    ),
    ("executable file not found", "the image is not a training image", "ftlaunch image build", Reason.BAD_IMAGE),
)


class Engine:
    """A container engine, reached as the docker command reaches it: DOCKER_HOST, else the current context."""

    def __init__(self, seconds: int = SECONDS) -> None:
        """``seconds``: longest wait for the next word of an answer."""
        with errors():
            self.client: Any = _client(tuple(os.environ.get(name) for name in _DECIDING), seconds)
            self.api: Any = self.client.api
            self.url = str(self.client.api.base_url)

    def inspect(self, name: str) -> Json | None:
        """The container's description; None if there is none."""
        return self._found(lambda: self.api.inspect_container(name))

    def image(self, name: str) -> Json | None:
        """The image's description; None if the engine has it not."""
        return self._found(lambda: self.api.inspect_image(name))

    def volume(self, name: str) -> Json | None:
        """The volume's description; None if there is none."""
        return self._found(lambda: self.api.inspect_volume(name))

    def make_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a volume; nothing happens if it is there."""
        with errors():
            self.api.create_volume(name, labels=dict(labels))

    def remove_volume(self, name: str) -> None:
        """Remove a volume unless a container uses it; nothing happens if there is none."""
        from docker.errors import APIError

        with errors():
            try:
                self.api.remove_volume(name)
            except APIError as error:
                if error.status_code not in (404, 409):  # gone already, or in use
                    raise

    def create(self, name: str, config: Json) -> bool:
        """Create a container; False if the name is taken."""
        from docker.errors import APIError

        with errors():
            try:
                self.api.create_container_from_config(config, name)
            except APIError as error:
                if error.status_code == 409:
                    return False
                raise
        return True

    def start(self, name: str) -> None:
        """Start a container; nothing happens if it runs."""
        with errors():
            self.api.start(name)

    def remove_container(self, name: str) -> None:
        """Remove a container that does not run; nothing happens if there is none."""
        from docker.errors import NotFound

        with errors(), contextlib.suppress(NotFound):
            self.api.remove_container(name)

    def put(self, container: str, folder: str, members: Iterable[Member]) -> None:
        """Send files into a folder of a container, running or not; its volumes are reached as well.

        Nothing is kept here on the way: the archive is made while it is sent.
        """
        with errors():
            self.api.put_archive(container, folder, _archive(members))

    @contextlib.contextmanager
    def get(self, container: str, path: str) -> Iterator[tarfile.TarFile | None]:
        """Read a file or folder of a container as an archive; None if it is not there."""
        from docker.errors import NotFound

        try:
            with errors(NotFound):
                chunks, _ = self.api.get_archive(container, path)
        except NotFound:
            yield None
            return
        with tarfile.open(fileobj=_Stream(chunks), mode="r|") as archive:  # type: ignore[call-overload]
            yield archive

    def packed(self, container: str, path: str) -> Iterator[bytes]:
        """A file or folder of a container as an archive's bytes."""
        with errors():
            chunks, _ = self.api.get_archive(container, path)
            yield from chunks

    def put_packed(self, container: str, folder: str, archive: Path) -> None:
        """Unpack an archive of `packed` into a folder of a container, running or not."""
        with errors(), archive.open("rb") as file:
            self.api.put_archive(container, folder, file)

    def read(self, container: str, path: str) -> bytes | None:
        """The content of a small file of a container; None if it is not there."""
        with self.get(container, path) as archive:
            if archive is None:
                return None
            member = archive.next()
            content = None if member is None else archive.extractfile(member)
            return b"" if content is None else content.read()

    def tail(self, container: str, lines: int) -> str:
        """The last lines of a container's output."""
        with errors():
            said: bytes = self.api.logs(container, stdout=True, stderr=True, tail=lines)
        return said.decode(errors="replace")

    def containers(self, label: str) -> list[Json]:
        """Short descriptions of all containers with a label."""
        with errors():
            found: list[Json] = self.api.containers(all=True, filters={"label": label})
        return found

    def info(self) -> Json:
        """What the engine tells of itself and its machine."""
        with errors():
            told: Json = self.api.info()
        return told

    def pull(self, image: str) -> None:
        """Pull an image with what `docker login` has stored."""
        repository, _, tag = image.partition("@")[0].rpartition(":")
        named = (repository, tag) if repository and "/" not in tag else (image, "latest")
        with errors():
            wanted = (image, None) if "@" in image else named
            for line in self.api.pull(wanted[0], tag=wanted[1], stream=True, decode=True):
                if "error" in line:  # comes with status 200, as the answer has begun by then
                    raise refusal(str(line["error"]))

    def stop(self, name: str, grace: int) -> None:
        """Ask for SIGTERM now and SIGKILL after ``grace`` seconds; the engine does both, whether or not we wait."""
        import requests

        url = f"{self.api.base_url}/v{self.api.api_version}/containers/{name}/stop"
        with errors(), contextlib.suppress(requests.exceptions.ReadTimeout):  # the request is out; the engine goes on
            self.api.post(url, params={"t": grace}, timeout=(10, 1))

    def signal(self, name: str, signal: str) -> None:
        """Send a signal; nothing happens if the container does not run."""
        from docker.errors import APIError

        with errors():
            try:
                self.api.kill(name, signal)
            except APIError as error:
                if error.status_code not in (404, 409):
                    raise

    def _found(self, ask: Any) -> Json | None:
        from docker.errors import NotFound

        with errors():
            try:
                found: Json = ask()
            except NotFound:
                return None
        return found


class _Stream:
    """A readable file over chunks of bytes, for tarfile."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = bytearray()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; fewer at the end only."""
        while len(self._rest) < size:
            with errors():
                chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        given = bytes(self._rest[:size])
        del self._rest[:size]
        return given


@contextlib.contextmanager
def errors(*wanted: type[Exception]) -> Iterator[None]:
    """Turn what the docker package and its connection raise into BackendError, but for what is ``wanted``."""
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except wanted:
        raise
    except APIError as error:
        raise refusal(str(error.explanation or error)) from error
    except (DockerException, requests.exceptions.RequestException, OSError) as error:
        cause = _innermost(error)
        if isinstance(cause, PermissionError):
            raise BackendError(NO_RIGHT, JOIN_GROUP, Reason.CREDENTIALS) from error
        raise BackendError(f"no Docker engine answers: {cause}", hint=START_ENGINE) from error


def refusal(said: str) -> BackendError:
    """What the engine's own words mean."""
    for words, message, hint, reason in _SAID:
        if re.search(words, said.lower()):
            return BackendError(f"{message}: {said}", hint=hint, reason=reason)
    return BackendError(f"the Docker engine refused: {said}", hint=ASK_ENGINE)


def _innermost(error: BaseException) -> BaseException:
    """The cause at the bottom, which is the one that says something."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


@functools.cache
def _client(settings: tuple[str | None, ...], seconds: int) -> Any:
    """A client for DOCKER_HOST, else for the current context of the docker command; one for the same settings, because
    each asks the engine for its version first."""
    try:
        import docker
    except ImportError as error:
        raise BackendError("the docker backend needs the docker package", "pip install 'ftlaunch[docker]'") from error
    host = settings[0]
    if host is None:
        context = docker.context.ContextAPI.get_current_context()
        if context is not None and context.Host:
            tls = context.TLSConfig or False
            return docker.DockerClient(base_url=context.Host, tls=tls, version="auto", timeout=seconds)
    return docker.from_env(version="auto", timeout=seconds, use_ssh_client=(host or "").startswith("ssh://"))


def _archive(members: Iterable[Member]) -> Iterator[bytes]:
    """An uncompressed archive of the members."""
    for info, content in members:
        if isinstance(content, bytes):
            info.size, content = len(content), (content,)
        elif isinstance(content, Path):
            info.size, content = content.stat().st_size, _chunks(content)
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from content or ()
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
