"""Checkpoints: all that a start needs to go on exactly where another was killed.

A checkpoint is a folder ``step-N`` that appears whole, by a rename, or not at all; the last two are kept. Finished
evaluations are kept beside them, so that baselines are not computed twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from training_image.errors import InputError
from training_image.evaluate import Evaluation, Outcome

_KEPT = 2


@dataclass(slots=True)
class Progress:
    """Where the training stands."""

    step: int = 0
    best_step: int = 0
    best_value: float | None = None
    waited: int = 0
    """Validations since the best one."""
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    resumed_from: int | None = None
    stopped_by: str | None = None
    """epochs, max_steps, patience or deadline, once the training has ended."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Lines of metrics.jsonl."""


class Checkpoints:
    """The checkpoint folder of one job."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """``fingerprint`` tells jobs apart. Raises InputError where the folder belongs to another job."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / "job"
        if mark.exists() and mark.read_text() != fingerprint:
            raise InputError(
                f"{folder} holds the checkpoints of another job", hint="Give an empty --checkpoints folder."
            )
        if not mark.exists():
            _write(mark, fingerprint)

    def save(self, model: Any, optimizer: torch.optim.Optimizer, scaler: Any, progress: Progress) -> None:
        """Save the state after ``progress.step`` steps."""
        new = self.folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        torch.save(
            {
                "adapter": adapter_state(model),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
            new / "state.pt",
        )
        (new / "progress.json").write_text(json.dumps(dataclasses.asdict(progress)))
        final = self.folder / f"step-{progress.step}"
        shutil.rmtree(final, ignore_errors=True)
        new.rename(final)
        for old in self._steps()[:-_KEPT]:
            shutil.rmtree(old)

    def restore(self, model: Any, optimizer: torch.optim.Optimizer, scaler: Any) -> Progress:
        """Go back to the last checkpoint; a fresh Progress where there is none."""
        steps = self._steps()
        if not steps:
            return Progress()
        state = torch.load(steps[-1] / "state.pt", map_location="cpu", weights_only=True)
        load_adapter_state(model, state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        progress = Progress(**json.loads((steps[-1] / "progress.json").read_text()))
        progress.resumed_from = progress.step
        return progress

    def save_best(self, model: Any) -> None:
        """Keep the adapter as the best one so far."""
        torch.save(adapter_state(model), self.folder / "best.new")
        (self.folder / "best.new").replace(self.folder / "best.pt")

    def restore_best(self, model: Any) -> None:
        """Put the best adapter back."""
        if (self.folder / "best.pt").exists():
            load_adapter_state(model, torch.load(self.folder / "best.pt", map_location="cpu", weights_only=True))

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
        _write(self.folder / f"{evaluation.name}.json", json.dumps(told, default=str))

    def number(self, name: str) -> float | None:
        """A number that an earlier start kept."""
        path = self.folder / f"{name}.number"
        return float(path.read_text()) if path.exists() else None

    def save_number(self, name: str, value: float) -> None:
        """Keep a number."""
        _write(self.folder / f"{name}.number", repr(value))

    def _steps(self) -> list[Path]:
        found = [path for path in self.folder.glob("step-*") if path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def adapter_state(model: Any) -> dict[str, Tensor]:
    """The adapter's weights on the CPU, by name."""
    state: Mapping[str, Tensor] = get_peft_model_state_dict(model)
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def load_adapter_state(model: Any, state: Mapping[str, Tensor]) -> None:
    """Put weights back into the adapter."""
    set_peft_model_state_dict(model, dict(state))


def _write(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    with contextlib.suppress(FileNotFoundError):
        new.replace(path)
