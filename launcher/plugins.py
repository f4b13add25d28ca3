"""Plug-ins that a job needs, and whether the image that it runs in will have them."""

from __future__ import annotations

import contextlib
import re
from importlib.metadata import EntryPoint, entry_points

from backends.interface import Backend
from launcher.job import JobFile
from training_image.errors import InputError

METRICS = "ftlaunch.metrics"
"""Entry point group of metrics, as `training_image.evaluate.metrics` reads it."""
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)


def lacking_in_image(file: JobFile, backend: Backend) -> InputError | None:
    """What is wrong if the job's metric is a plug-in here and the image will not have it; None if nothing is."""
    metric = file.job.task.metric
    if metric is None or not backend.capabilities.image:
        return None
    plugin = _plugin(metric)
    if plugin is None or plugin.dist is None:
        return None
    extra = file.image_extra
    pinned = _PINNED.findall(extra.read_text(encoding="utf-8")) if extra else []
    if _normal(plugin.dist.name) in map(_normal, pinned):
        return None
    message = f"task.metric: {metric} comes from the package {plugin.dist.name}, which the image will not have"
    hint = f"name a file with {plugin.dist.name} and its hash in image.extra (`pip-compile --generate-hashes`)"
    return InputError(message, hint=hint)


def _plugin(metric: str) -> EntryPoint | None:
    """The installed plug-in with that metric: by its entry point's name, which costs nothing, else by its own."""
    entries = entry_points(group=METRICS)
    if metric in entries.names:
        return entries[metric]
    for entry in entries:
        with contextlib.suppress(Exception):  # one that cannot be loaded is told by whoever needs it
            if entry.load().name == metric:
                return entry
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
