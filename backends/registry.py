"""Finds backends: ours by name, others by the entry point group ``ftlaunch.backends``.

Nothing is imported before it is asked for by name, so that a broken or heavy plug-in costs only those who use it.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass

from backends.interface import Backend
from training_image.errors import InputError

GROUP = "ftlaunch.backends"

OURS = {
    "local": "backends.local:Local",
    "sagemaker": "backends.sagemaker:SageMaker",
}
"""Our own backends, name by ``module:Class``."""


@dataclass(frozen=True)
class Broken:
    """A backend that is installed but cannot be imported."""

    name: str
    where: str
    """``module:Class`` of the entry point."""
    error: str


def names() -> list[str]:
    """All names, ours first, then the plug-ins' in order; reads the installed distributions' metadata."""
    return list(_targets())


def load(name: str) -> type[Backend]:
    """Give the backend's class.

    Raises InputError for a name nobody has (naming the nearest) and for a plug-in that cannot be imported.
    """
    where = OURS.get(name) or _targets().get(name)
    if where is None:
        known = names()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"there is no backend {name!r}", hint=hint)
    found = _import(name, where)
    if isinstance(found, Broken):
        raise InputError(
            f"the backend {name!r} ({found.where}) cannot be loaded: {found.error}",
            hint="update or uninstall the package that brings it, or take another --backend",
        )
    return found


def every() -> dict[str, type[Backend] | Broken]:
    """All backends by name; one that cannot be imported stands there as `Broken` and stops nobody else."""
    return {name: _import(name, where) for name, where in _targets().items()}


def _targets() -> dict[str, str]:
    from importlib.metadata import entry_points  # 20 ms, and needed only for plug-ins

    targets = dict(OURS)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        targets.setdefault(point.name, point.value)
    return targets


def _import(name: str, where: str) -> type[Backend] | Broken:
    module, _, attribute = where.partition(":")
    try:
        found = vars(importlib.import_module(module)).get(attribute)
    except Exception as error:  # a plug-in's import may raise anything; it is named, and the others go on
        return Broken(name, where, f"{type(error).__name__}: {error}")
    if not (isinstance(found, type) and issubclass(found, Backend)):
        return Broken(name, where, f"{attribute!r} in {module} is not a subclass of backends.interface.Backend")
    if found.name != name:
        return Broken(name, where, f"its class calls itself {found.name!r}")
    return found
