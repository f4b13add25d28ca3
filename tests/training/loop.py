"""What the loop needs around it, for tests that run it in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_image.checkpoints import Checkpoints
from training_image.platform import StopSignal
from training_image.train import Hooks, Validate


def nothing(model: Any) -> tuple[str, float, dict[str, float]]:
    """No validation rows."""
    return "accuracy", 0.0, {}


def hooks(
    folder: Path,
    lines: list[dict[str, float]],
    validate: Validate = nothing,
    stop: StopSignal | None = None,
    fingerprint: str = "job",
) -> Hooks:
    """Checkpoints below the folder; each line of metrics.jsonl goes to ``lines``."""

    def report(line: Mapping[str, float]) -> None:
        lines.append(dict(line))

    checkpoints = Checkpoints(folder / "checkpoints", fingerprint)
    return Hooks(checkpoints, validate, True, report, stop or StopSignal())
