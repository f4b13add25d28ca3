"""Checkpoints: all that a start needs to go on exactly where another was killed.

A checkpoint is one file, ``step-N.pt``, which appears whole, by a rename, or not at all: folders cannot be renamed on
every bucket that is mounted as a disk, and a copy service may carry half of one. The last two are kept; a file that
cannot be read is passed over for the one before. Finished evaluations are kept beside them, so that baselines are not
computed twice.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from training_image.errors import InputError
from training_image.evaluate import Evaluation, Outcome
from training_image.given import MARK, begun_before
from training_image.progress import say
from training_image.time_used import TimeUsed

_KEPT = 2


@dataclass(slots=True)
class Progress:
    """Where the training stands."""

    step: int = 0
    best_step: int = 0
    best_value: float | None = None
    waited: int = 0
    """Validations since the best one."""
    validated: int = 0
    """The step of the last validation."""
    validation_seconds: float = 0.0
    """Seconds that the last validation took."""
    tokens: int = 0
    """Tokens of all rows seen; a beginning that rows share counts in each."""
    supervised_tokens: int = 0
    seconds: float = 0.0
    """Of the optimizer steps alone."""
    resumed_from: int | None = None
    stopped_by: str | None = None
    """epochs, max_steps, patience or deadline, once the training has ended."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Lines of metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint holds."""

    adapter: dict[str, Tensor]
    best: dict[str, Tensor] | None
    """The best adapter so far."""
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    progress: Progress


class Checkpoints:
    """The checkpoint folder of one job."""

    def __init__(self, folder: Path, fingerprint: str, time_used: TimeUsed | None = None) -> None:
        """``fingerprint`` tells jobs apart. Raises InputError where the folder belongs to another job.

        The time used is noted with whatever is kept.
        """
        self.folder = folder
        self._note = time_used.note if time_used else lambda: None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark = folder / MARK
            if not mark.exists():
                _write(mark, fingerprint.encode())
        except OSError as error:
            hint = "Give another --checkpoints folder."
            raise InputError(f"cannot write to {folder}: {error.strerror}", hint) from error
        begun_before(folder, fingerprint)

    def save(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        progress: Progress,
        best: dict[str, Tensor] | None,
    ) -> None:
        """Save the state after ``progress.step`` steps."""
        state = {
            "adapter": adapter_state(model),
            "best": best,
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "progress": json.dumps(dataclasses.asdict(progress)),
        }
        new = self.folder / "step.new"
        with new.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / f"step-{progress.step}.pt")
        self._note()
        for old in self._steps()[:-_KEPT]:
            old.unlink()

    def load(self) -> State | None:
        """The last checkpoint that can be read; None where there is none."""
        for path in reversed(self._steps()):
            try:
                told = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
                say(f"the checkpoint {path.name} cannot be read, going back to the one before: {error}")
                continue
            return State(**{**told, "progress": Progress(**json.loads(told["progress"]))})
        return None

    def evaluation(self, name: str) -> Evaluation | None:
        """An evaluation that an earlier start finished."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        told = json.loads(path.read_text())
        told["outcomes"] = tuple(
            Outcome(**{**each, "references": tuple(each["references"])}) for each in told["outcomes"]
        )
        told["ci95"] = {metric: tuple(bounds) for metric, bounds in told["ci95"].items()}
        return Evaluation(**told)

    def save_evaluation(self, evaluation: Evaluation) -> None:
        """Keep a finished evaluation."""
        told = {each.name: getattr(evaluation, each.name) for each in dataclasses.fields(evaluation)}
        told["outcomes"] = [
            {each.name: getattr(outcome, each.name) for each in dataclasses.fields(outcome)}
            for outcome in evaluation.outcomes
        ]
        _write(self.folder / f"{evaluation.name}.json", json.dumps(told, default=str).encode())
        self._note()

    def number(self, name: str) -> float | None:
        """A number that an earlier start kept."""
        path = self.folder / f"{name}.number"
        return float(path.read_text()) if path.exists() else None

    def save_number(self, name: str, value: float) -> None:
        """Keep a number."""
        _write(self.folder / f"{name}.number", repr(value).encode())

    def _steps(self) -> list[Path]:
        """From the first to the last."""
        return sorted(self.folder.glob("step-*.pt"), key=lambda path: int(path.stem.partition("-")[2]))


def adapter_state(model: Any) -> dict[str, Tensor]:
    """The adapter's weights on the CPU, by name."""
    # Embeddings are trained by `modules_to_save` alone, which are there anyway, and the vocabulary is never resized;
    # peft would ask the hub at every checkpoint whether it was.
    state: Mapping[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def load_adapter_state(model: Any, state: Mapping[str, Tensor]) -> None:
    """Put weights back into the adapter."""
    set_peft_model_state_dict(model, dict(state))


def _write(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")  # processes of one job may write the same file at once
    new.write_bytes(content)
    new.replace(path)
