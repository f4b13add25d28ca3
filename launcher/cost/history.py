"""The user's own measured trainings: what each finished job says of the speed of its device."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backends import hardware
from launcher.cost.speed import Run
from launcher.store import Record, Store

NEWEST = 200
"""Jobs that are looked at."""


def own_runs(store: Store | None) -> list[Run]:
    """The measured trainings of this user, newest first; a result that is gone or broken is passed over."""
    records = store.jobs()[:NEWEST] if store else []
    return [run for record in records if (run := measured(record)) is not None]


def measured(record: Record) -> Run | None:
    """What a job's results say, by the tokens that its estimate counted and the seconds that its training took."""
    if record.output is None or record.estimate is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        folder = Path(record.output)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        work = record.estimate["work"]
        training = result["training"]
        share = training["steps"] / work["steps"]
        settings = result["settings"]
        parallel = result["platform"].get("parallel") or {"processes": 1, "base": "whole"}
        if parallel["base"] == "sharded":
            return None  # much of its time is the gathering's
        counted = max(1, int(record.estimate.get("gpu_count") or 1))
        return Run(
            gpu=_device(folder, result),
            weights=float(work.get("weights") or result["model"]["parameters"]),
            tokens=float(work["tokens"]),
            checkpointing=settings.get("checkpointing") == "on",
            tokens_per_second=work["train_tokens"] * share / training["seconds"] * counted / parallel["processes"],
            cores=int(work.get("cores") or 1),
        )
    return None


def _device(folder: Path, result: Any) -> str:
    """Our name of the device. Raises KeyError for a GPU that is not in the table."""
    if result["platform"]["device"] == "cpu":
        return "cpu"
    environment = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["environment"]
    found = hardware.gpu(str(environment["gpu"]))
    if found is None:
        raise KeyError(environment["gpu"])
    return found.name


def described(runs: Iterable[Run]) -> str:
    """In words, how many runs there are of which device."""
    counted: dict[str, int] = {}
    for run in runs:
        counted[run.gpu] = counted.get(run.gpu, 0) + 1
    return ", ".join(f"{count} on {name}" for name, count in counted.items())
