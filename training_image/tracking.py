"""The curves, sent to TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from training_image.spec import Tracking


class Tracker:
    """Writes each line of metrics.jsonl as scalars."""

    def __init__(self, folder: Path, settings: Tracking, history: Iterable[Mapping[str, float]]) -> None:
        """``history``: the lines of an earlier start, written again, as its event file may lack or exceed them."""
        self._writer = None
        if "tensorboard" not in settings.report_to:
            return
        for old in folder.glob("events.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))
        for line in history:
            self.log(line)

    def log(self, line: Mapping[str, float]) -> None:
        """Write one line's values at its step."""
        if self._writer is None:
            return
        for name, value in line.items():
            if "/" in name:
                self._writer.add_scalar(name, value, int(line["step"]), line["time"])

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()
