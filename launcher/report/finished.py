"""What a finished job left, read from its results folder alone; nothing here asks a place or imports torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.store import Record
from training_image.errors import InputError

ORDER = ("classical", "zero_shot", "few_shot", "tuned")
NAMES = {"classical": "classical", "zero_shot": "zero-shot", "few_shot": "few-shot", "tuned": "tuned"}
Line = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A job with its results."""

    folder: Path
    result: dict[str, Any]
    """result.json."""
    manifest: dict[str, Any]
    """manifest.json."""
    history: list[dict[str, Any]]
    """Lines of metrics.jsonl."""
    predictions: dict[str, list[Line]]
    """Lines of predictions/, by evaluation, in the order of `ORDER`."""
    job_file: str
    """The job file as it was submitted; empty where the folder has none."""
    record: Record | None
    """What the store knows; None for results that another machine's launcher fetched."""

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return str(self.result["task"]["metric"])

    @property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """`evaluations` of result.json, in the order of `ORDER`."""
        found = self.result["evaluations"]
        return {name: found[name] for name in ORDER if found.get(name)}

    @property
    def best_baseline(self) -> str:
        """The evaluation that the tuned model is held against."""
        return str(self.result["verdict"]["baseline"])


def read(folder: Path, record: Record | None) -> Finished:
    """Read a results folder. Raises InputError where the job came to no verdict or a file is broken."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = "a job that failed has its output in ftlaunch logs JOB"
        raise InputError(f"{folder} holds no {Path(str(error.filename)).name}: no finished job", hint=hint) from error
    except ValueError as error:
        raise InputError(
            f"the results in {folder} are broken: {error}", hint="ftlaunch fetch brings them anew"
        ) from None
    if not result.get("verdict"):
        raise InputError(f"{folder} holds a trial or a screening, not a job with a verdict")
    job_file = folder / "job.yaml"
    return Finished(
        folder=folder,
        result=result,
        manifest=manifest,
        history=history(folder),
        predictions={name: rows for name in ORDER if (rows := _lines(folder / "predictions" / f"{name}.jsonl"))},
        job_file=job_file.read_text(encoding="utf-8") if job_file.is_file() else "",
        record=record,
    )


def history(folder: Path) -> list[dict[str, Any]]:
    """What was logged on the way, by line of metrics.jsonl. Raises InputError where the file is broken."""
    return _lines(folder / "metrics.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; none where there is no such file."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except ValueError as error:
        raise InputError(f"{path} is broken: {error}", hint="ftlaunch fetch brings it anew") from None
