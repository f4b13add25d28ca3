"""What `backends.docker` asks of a container engine: containers, volumes and archives, with errors that say what to do.

All goes over the engine's API, nothing over this machine's file system, so that a remote engine works the same.
The docker package is imported when a client is made, and not before.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.interface import BackendError, Json, Reason

START_ENGINE = (
    "start one (Docker Desktop, `systemctl start docker`, or as root `dockerd &`), point DOCKER_HOST at one,"
    " or run without a container: --backend local"
)
LABEL = "ftlaunch.job"
SPOOL = 64 << 20
"""Bytes of an archive that are kept in memory; a larger one goes to a temporary file."""
API = "1.40"
"""Lowest version of the engine's API that is needed (Docker 19.03: device requests)."""

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
    ("no such image", "the engine has no such image", "ftlaunch image build", Reason.BAD_IMAGE),
    ("executable file not found", "the image is not a training image", "ftlaunch image build", Reason.BAD_IMAGE),
)


class Engine:
    """A container engine, reached as the docker command reaches it: DOCKER_HOST, else the current context."""

    def __init__(self) -> None:
        try:
            import docker
        except ImportError as error:
            raise BackendError(
                "the docker backend needs the docker package", "pip install 'ftlaunch[docker]'"
            ) from error
        with errors():
            self.client: Any = _client(docker)
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

    def put(self, container: str, folder: str, files: Iterable[tuple[tarfile.TarInfo, Path | bytes | None]]) -> None:
        """Send files into a folder of a container, running or not; its volumes are reached as well."""
        with tempfile.SpooledTemporaryFile(SPOOL) as spool:
            with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for info, content in files:
                    _add(archive, info, content)
            spool.seek(0)
            with errors():
                self.api.put_archive(container, folder, spool)

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

    def exists(self, container: str, path: str) -> bool:
        """Whether there is such a path in the container."""
        with self.get(container, path) as archive:
            return archive is not None

    def stop(self, name: str, grace: int) -> None:
        """Ask for SIGTERM now and SIGKILL after ``grace`` seconds; the engine does both, whether or not we wait."""
        import requests

        url = f"{self.api.base_url}/v{self.api.api_version}/containers/{name}/stop"
        with errors(), contextlib.suppress(requests.exceptions.ReadTimeout):  # the request is out; the engine goes on
            self.api.post(url, params={"t": grace}, timeout=(10, 1))

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
        said = str(error.explanation or error)
        for words, message, hint, reason in _SAID:
            if words in said.lower():
                raise BackendError(f"{message}: {said}", hint=hint, reason=reason) from error
        raise BackendError(f"the Docker engine refused: {said}", hint="`docker info` shows how it stands") from error
    except (DockerException, requests.exceptions.RequestException, OSError) as error:
        cause = _innermost(error)
        if isinstance(cause, PermissionError):
            hint = "join the group docker (`sudo usermod -aG docker $USER`), or use a rootless engine"
            raise BackendError("this user may not use the Docker engine", hint, Reason.CREDENTIALS) from error
        raise BackendError(f"no Docker engine answers: {cause}", hint=START_ENGINE) from error


def _innermost(error: BaseException) -> BaseException:
    """The cause at the bottom, which is the one that says something."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def _client(docker: Any) -> Any:
    """A client for DOCKER_HOST, else for the current context of the docker command."""
    if "DOCKER_HOST" not in os.environ:
        context = docker.context.ContextAPI.get_current_context()
        if context is not None and context.Host:
            tls = context.TLSConfig or False
            return docker.DockerClient(base_url=context.Host, tls=tls, version="auto")
    return docker.from_env(version="auto", use_ssh_client=os.environ.get("DOCKER_HOST", "").startswith("ssh://"))


def _add(archive: tarfile.TarFile, info: tarfile.TarInfo, content: Path | bytes | None) -> None:
    if content is None:
        archive.addfile(info)
    elif isinstance(content, bytes):
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    else:
        info.size = content.stat().st_size
        with content.open("rb") as file:
            archive.addfile(info, file)
