"""What the requests to clouds have in common: pure, without an SDK."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from re import Pattern
from typing import TypeVar

from backends.interface import Json, Unresolved

RunT = TypeVar("RunT")
MOST = 63
"""Letters of a job's name that every service takes."""


def placeholder(backend: str, key: str) -> str:
    """What stands in a request for an account fact that is not known."""
    return f"<{backend}.{key}>"


def unresolved(backend: str, hints: Mapping[str, str], request: Json) -> tuple[Unresolved, ...]:
    """The account facts that still stand as placeholders in the request; ``hints``: what to do, by fact."""
    text = json.dumps(request)
    return tuple(
        Unresolved(path=f"backends.{backend}.{key}", hint=hint)
        for key, hint in hints.items()
        if placeholder(backend, key) in text
    )


def filled(backend: str, request: Json, known: Mapping[str, str]) -> Json:
    """The request with these facts in the place of their placeholders."""
    text = json.dumps(request)
    for key, value in known.items():
        text = text.replace(placeholder(backend, key), value)
    made: Json = json.loads(text)
    return made


def listing_digest(files: Mapping[str, str]) -> str:
    """A name for a data folder of exactly these files (SHA-256 by name): its jobs share it in the storage."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:32]


def is_own_image(uri: str, image: str | None, elsewhere: Pattern[str]) -> bool:
    """Whether the name in the registry is that of the job's own image, and not one that the user has put there.

    ``elsewhere``: what a name in that registry looks like.
    """
    return image is not None and not elsewhere.fullmatch(image) and uri.rpartition(":")[2] == image.rpartition(":")[2]


def run_name(job_name: str, run: int) -> str:
    """The service's name of a job's run, where that is ours to choose: ``JOB``, then ``JOB-r1`` and so on.

    At most 63 characters: where they do not fit the stem is cut, the eight digits at the end stay.
    """
    if run == 0:
        return job_name
    suffix = f"-r{run}"
    stem, _, digits = job_name.rpartition("-")
    return f"{stem[: MOST - 1 - len(digits) - len(suffix)].rstrip('-')}-{digits}{suffix}".lstrip("-")


def runs_by_name(get: Callable[[str], RunT | None], job_name: str) -> list[RunT]:
    """The runs that a service knows by `run_name`, from the first to the last."""
    runs: list[RunT] = []
    while (run := get(run_name(job_name, len(runs)))) is not None:
        runs.append(run)
    return runs


def without_none(content: Json) -> Json:
    """The content but for the keys that have no value."""
    return {key: value for key, value in content.items() if value is not None}
