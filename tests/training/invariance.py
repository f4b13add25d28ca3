"""Classes of settings that must give the same trajectory of losses and gradient norms: one part of a tiny model's tests
and of `proof.invariance`, where a real small model goes through them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.training.loop import hooks
from training_image import batches
from training_image import model as models
from training_image.batches import MicroBatch
from training_image.data.examples import IGNORED, Sample
from training_image.errors import Stopped
from training_image.platform import StopSignal
from training_image.processes import Processes
from training_image.spec import Spec
from training_image.train import Hooks, Trainer, plan_steps

Trajectory = list[tuple[float, float]]
LARGEST, DRIFT = 1e-3, 1e-5

REFERENCE: dict[str, Any] = {"layout": "padded", "rows": 8}
CLASSES: dict[str, dict[str, Any]] = {
    "four rows at a time": {"layout": "padded", "rows": 4},
    "one row at a time": {"layout": "padded", "rows": 1},
    "packed": {"layout": "packed", "rows": 8},
    "packed, two rows at a time": {"layout": "packed", "rows": 2},
    "behind a shared beginning": {"layout": "shared", "rows": 8},
    "padded on the left": {"layout": "padded", "rows": 8, "left": True},
    "padded on the left, four rows at a time": {"layout": "padded", "rows": 4, "left": True},
    "checkpointing": {"layout": "padded", "rows": 8, "checkpointing": "on"},
    "packed with checkpointing": {"layout": "packed", "rows": 8, "checkpointing": "on"},
    "logits in chunks": {"layout": "padded", "rows": 8, "chunked": True},
    "stopped and resumed": {"layout": "padded", "rows": 8, "stop_after": 2},
}


@dataclass(frozen=True)
class Case:
    """Rows and their model; the base is loaded once for all classes."""

    spec: Spec
    setting: models.Setting
    base: Any
    samples: list[Sample]
    pad: int
    rate: float
    chunk: int
    """Positions of a chunk of logits, where they are cut."""

    def trajectory(
        self,
        folder: Path,
        *,
        layout: batches.Layout,
        rows: int,
        chunked: bool = False,
        left: bool = False,
        stop_after: int | None = None,
        processes: Processes | None = None,
        **train: Any,
    ) -> Trajectory:
        """Loss and gradient norm of each step. ``rows``: how many of the longest fill a micro-batch."""
        longest = max(len(sample.input_ids) for sample in self.samples)
        changed = self.spec.train.model_copy(update={"micro_batch_tokens": rows * longest, **train})
        spec = self.spec.model_copy(update={"train": changed})
        lines: list[dict[str, float]] = []
        for stop in [StopSignal()] if stop_after is None else [StopSignal(), StopSignal()]:
            model = models.add_adapter(self.base, spec)
            trainer = Trainer(model, self.samples, self.setting, changed, self.rate, self.pad, processes)
            trainer.layout, trainer.chunk = layout, self.chunk if chunked else None
            wiring = hooks(folder, lines, stop=stop)
            with padded_on_the_left() if left else contextlib.nullcontext(), contextlib.suppress(Stopped):
                progress = trainer.restore(wiring.checkpoints)
                if stop_after is not None and not lines:
                    wiring = stopping(wiring, stop_after)
                trainer.fit(plan_steps(changed, len(self.samples), None), wiring, progress)
            trainer.unload()
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        return [(line["train/loss"], line["train/grad_norm"]) for line in lines]


def stopping(wiring: Hooks, step: int) -> Hooks:
    """As SIGTERM after a step does."""

    def report(line: Mapping[str, float]) -> None:
        wiring.report(line)
        if line["step"] == step:
            wiring.stop._handle(signal.SIGTERM, None)

    return replace(wiring, report=report)


@contextlib.contextmanager
def padded_on_the_left() -> Iterator[None]:
    """What the trainer pads on the right stands on the other side."""

    def padded(group: list[Sample], pad: int) -> MicroBatch:
        width = max(len(sample.input_ids) for sample in group)
        ids = torch.full((len(group), width), pad)
        labels = torch.full((len(group), width), IGNORED)
        mask = torch.zeros((len(group), width), dtype=torch.long)
        for row, sample in enumerate(group):
            start = width - len(sample.input_ids)
            ids[row, start:] = torch.tensor(sample.input_ids)
            labels[row, start + 1 :] = torch.tensor(sample.labels[1:])
            mask[row, start:] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        sources, targets = batches._supervised(labels)
        return MicroBatch(ids, positions, mask, sources, targets)

    with patch.object(batches, "_padded", padded):
        yield


def differences(found: Trajectory, reference: Trajectory) -> tuple[float, float]:
    """The largest difference, and the mean one: of losses in nats, of norms as a share of a norm above 1."""
    assert len(found) == len(reference)
    off = [
        abs(one[place] - two[place]) / (max(1.0, two[1]) if place else 1.0)
        for one, two in zip(found, reference, strict=True)
        for place in (0, 1)
    ]
    return max(off), sum(off) / len(off)
