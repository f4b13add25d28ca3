"""The image on its way to a cloud's registry, by the engine of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from backends import transfer
from backends.docker_checks import build_hint
from backends.docker_engine import Engine, errors
from backends.interface import BackendError, Reason

SECONDS = 600
"""Longest wait for the engine's next word, while a registry takes a layer of gigabytes."""


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
    try:
        _push(local, uri, log_in())
    except BackendError:
        # Another launcher may have pushed the same content: a tag that cannot be moved is refused then, and the
        # local name is gone with that launcher's end.
        found = look()
        if found is None:
            raise
        return found
    found = look()
    if found is None:
        raise BackendError(f"{uri} was pushed, and is not there", hint="try again", reason=Reason.BAD_IMAGE)
    return found


def _push(local: str, uri: str, login: Mapping[str, str]) -> None:
    from docker.utils import parse_repository_tag

    engine = _engine()
    name, tag = parse_repository_tag(uri)
    if engine.image(local) is None:
        message = f"the engine of this machine has no image {local}"
        raise BackendError(message, hint=build_hint(local), reason=Reason.BAD_IMAGE)
    try:
        with errors():
            engine.api.tag(local, name, tag)
            try:
                layers = transfer.Layers(uri)
                for line in engine.api.push(name, tag, stream=True, decode=True, auth_config=dict(login)):
                    if "error" in line:
                        raise BackendError(str(line["error"]))
                    layers.take(line)
            finally:
                with contextlib.suppress(BackendError), errors():  # another launcher may have taken it away
                    engine.api.remove_image(uri)  # only the name; the image stays under its own
    except BackendError as error:
        hint = "try again; what has arrived is not sent again"
        raise BackendError(f"pushing {uri} failed: {error.message}", hint=hint, reason=Reason.BAD_IMAGE) from error


def _engine() -> Engine:
    try:
        return Engine(SECONDS)
    except BackendError as error:
        hint = f"{error.hint}; or name an image that is in the registry already: the option image"
        raise BackendError(f"the image cannot be pushed: {error.message}", hint, Reason.BAD_IMAGE) from error
