"""How long is trained and how fast: the defaults that few rows and every size of model need."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_image import model as models
from training_image.spec import Train
from training_image.train import Trainer, plan_steps, rate

from .loop import hooks
from .test_model import make_samples, make_spec


def test_few_rows_have_enough_steps_by_default() -> None:
    """200 rows learn little in 15 steps and most of it in 50."""
    assert plan_steps(Train(), 200, None).steps >= 50
    assert Train().batch_size < 32


def test_epochs_and_max_steps() -> None:
    assert plan_steps(Train(epochs=2.0), 17, None).steps == 6
    assert plan_steps(Train(epochs=0.5), 17, None).steps == 2
    assert plan_steps(Train(epochs=2.0, max_steps=4), 17, None).steps == 4
    assert plan_steps(Train(evaluations_per_epoch=3), 48, None).validate_every == 2


@pytest.mark.parametrize(("size", "peak"), [(135e6, 1e-3), (1e9, 2e-4), (8e9, 2e-4), (13e9, 1e-4), (70e9, 1e-4)])
def test_the_rate_follows_the_models_size(size: float, peak: float) -> None:
    spec = make_spec()
    by_size = spec.model_copy(update={"train": spec.train.model_copy(update={"learning_rate": None})})
    assert models.learning_rate(by_size, int(size)) == peak
    assert models.learning_rate(spec, int(size)) == spec.train.learning_rate


@given(st.integers(1, 400), st.sampled_from(["linear", "cosine", "constant"]), st.floats(0, 0.5))
def test_the_rate_rises_to_its_peak_and_falls(steps: int, scheduler: Any, warmup: float) -> None:
    settings = Train(scheduler=scheduler, warmup=warmup)
    rates = [rate(step, steps, 1.0, settings) for step in range(steps)]
    warm = math.ceil(warmup * steps)
    assert all(0 < value <= 1 for value in rates)
    assert rates[: warm + 1] == sorted(rates[: warm + 1])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    assert max(rates) == 1.0


def test_a_cpu_trains_in_single_precision(tmp_path: Path) -> None:
    """16-bit numbers take up to thirty times as long there."""
    setting = models.choose(make_spec(), tmp_path)
    if setting.device.type == "cpu":
        assert setting.dtype_name == "float32"


@pytest.mark.parametrize(("minutes", "kept"), [(1e-9, {"step-5.pt", "step-6.pt"}), (60.0, {"step-6.pt"})])
def test_a_checkpoint_is_written_when_its_time_has_come(tmp_path: Path, minutes: float, kept: set[str]) -> None:
    spec = make_spec(checkpoint_minutes=minutes)
    setting = models.choose(spec, tmp_path)
    trainer = Trainer(models.add_adapter(models.load_base(setting), spec), make_samples(), setting, spec.train, 3e-3, 2)
    wiring = hooks(tmp_path, [])
    trainer.fit(plan_steps(spec.train, 12, None), wiring, trainer.restore(wiring.checkpoints))
    assert {path.name for path in (tmp_path / "checkpoints").glob("step-*")} == kept
