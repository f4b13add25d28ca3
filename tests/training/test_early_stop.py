"""The training ends when the validation metric stops rising, and the best step's adapter is the one that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training_image import model as models
from training_image.checkpoints import adapter_state
from training_image.train import Trainer, plan_steps

from .loop import hooks
from .test_model import make_samples, make_spec


def run(tmp_path: Path, values: list[float], higher: bool = True, **train: Any) -> tuple[Any, list[dict], Any]:
    """Train with these validation values, one an epoch; the progress, the adapter at each validation, the last one."""
    spec = make_spec(epochs=float(len(values)), **train)
    setting = models.choose(spec, tmp_path)
    trainer = Trainer(models.add_adapter(models.load_base(setting), spec), make_samples(), setting, spec.train, 3e-3, 2)
    seen: list[dict] = []

    def validate(model: Any) -> tuple[str, float, dict[str, float]]:
        seen.append(adapter_state(model))
        value = values[len(seen) - 1]
        return "accuracy", value, {"validation/accuracy": value}

    wiring = hooks(tmp_path, [], validate)
    wiring = type(wiring)(wiring.checkpoints, validate, higher, wiring.report, wiring.stop)
    progress = trainer.fit(plan_steps(spec.train, 12, None), wiring, trainer.restore(wiring.checkpoints))
    return progress, seen, adapter_state(trainer.model)


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("higher", [True, False])
def test_it_stops_after_patience_and_keeps_the_best_step(tmp_path: Path, higher: bool) -> None:
    values = [0.3, 0.6, 0.5, 0.4, 0.9]
    progress, seen, last = run(tmp_path, values if higher else [-v for v in values], higher, patience=2)
    assert (progress.stopped_by, progress.best_step, len(seen)) == ("patience", 6, 4)  # three steps an epoch
    assert same(last, seen[1])
    assert not same(last, seen[3])


def test_without_patience_it_trains_on_and_still_keeps_the_best_step(tmp_path: Path) -> None:
    progress, seen, last = run(tmp_path, [0.6, 0.5, 0.4, 0.3], patience=0)
    assert (progress.stopped_by, progress.best_step, len(seen)) == ("epochs", 3, 4)
    assert same(last, seen[0])


def test_of_equal_steps_the_first_is_kept(tmp_path: Path) -> None:
    progress, seen, last = run(tmp_path, [0.5, 0.5], patience=0)
    assert progress.best_step == 3
    assert same(last, seen[0])
