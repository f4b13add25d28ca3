"""The image on its way to a cloud's registry, by the engine of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backends.interface import BackendError, Reason


def send(local: str | None, uri: str, look: Callable[[], str | None], log_in: Callable[[], Mapping[str, str]]) -> str:
    """Push the local image under the registry's name ``uri`` unless it is there; its digest.

    ``look`` asks the registry for the digest under that name; ``log_in`` makes the repository ready, and gives username
    and password. Raises BackendError where there is no such image, or no engine that has it.
    """
    found = look()
    if found is not None:
        return found
    if local is None or local == uri:
        raise BackendError(f"there is no image {uri}", hint="push it, or correct its name", reason=Reason.BAD_IMAGE)
    _push(local, uri, log_in())
    found = look()
    if found is None:
        raise BackendError(f"{uri} was pushed, and is not there", hint="try again", reason=Reason.BAD_IMAGE)
    return found


def _push(local: str, uri: str, login: Mapping[str, str]) -> None:
    import docker
    from docker.errors import DockerException, ImageNotFound
    from docker.utils import parse_repository_tag

    name, tag = parse_repository_tag(uri)
    try:
        client = docker.from_env(timeout=600)
        client.images.get(local).tag(name, tag)
        try:
            for line in client.api.push(name, tag, stream=True, decode=True, auth_config=dict(login)):
                if "error" in line:
                    raise BackendError(
                        f"pushing {uri} failed: {line['error']}",
                        hint="try again; what has arrived is not sent again",
                        reason=Reason.BAD_IMAGE,
                    )
        finally:
            client.images.remove(uri)  # only the name; the image stays under its own
            client.close()
    except ImageNotFound as error:
        message = f"the engine of this machine has no image {local}"
        raise BackendError(message, hint="ftlaunch image build makes it", reason=Reason.BAD_IMAGE) from error
    except DockerException as error:
        hint = "start a Docker engine, or name an image that is in the registry already: the option image"
        raise BackendError(f"the image cannot be pushed: {error}", hint=hint, reason=Reason.BAD_IMAGE) from error
