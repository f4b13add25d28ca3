"""What only a base in 16 bits shows, as GPUs have it; on the CPU it takes the same code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training_image import model as models
from training_image.checkpoints import Progress
from training_image.evaluate.generate import generate
from training_image.evaluate.score import log_likelihoods
from training_image.spec import Spec
from training_image.train import Trainer, plan_steps

from .loop import hooks
from .test_model import make_samples, make_spec


def spec_in(dtype: str, **train: Any) -> Spec:
    spec = make_spec(method="lora", **train)
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})


def trainer_of(spec: Spec, count: int = 12) -> Trainer:
    setting = models.choose(spec, Path())
    model = models.add_adapter(models.load_base(setting), spec)
    return Trainer(model, make_samples(count), setting, spec.train, 3e-3, pad=2)


@pytest.mark.parametrize("whole", ["embed_tokens", "lm_head"])
def test_modules_trained_whole_are_trained_and_evaluated_beside_16_bits(
    tmp_path: Path, whole: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_of(spec_in("bf16", max_steps=1, modules_to_save=[whole]))
    assert (trainer.layout, trainer.chunk is not None) == ("shared", True)
    trainer.fit(plan_steps(trainer.settings, 12, None), hooks(tmp_path, []), Progress())
    prompts = [sample.input_ids[:-3] for sample in trainer.samples]
    scores = log_likelihoods(trainer.model, prompts, [[[50], [60, 61]]] * len(prompts))
    assert all(-50 < score < 0 for row in scores for score in row)
    assert len(generate(trainer.model, prompts, {2}, 4)) == len(prompts)
    assert "does not take packed rows" not in capsys.readouterr().out


@pytest.mark.parametrize(("first", "then"), [("bf16", "fp16"), ("fp16", "bf16"), ("fp16", "fp16")])
def test_a_checkpoint_is_taken_up_on_a_card_of_another_type(tmp_path: Path, first: str, then: str) -> None:
    """Colab gives an L4 one time, which has bf16, and a T4 the next, which has none."""
    before = trainer_of(spec_in(first))
    wiring = hooks(tmp_path, [])
    before.save(wiring.checkpoints, Progress(step=3))
    after = trainer_of(spec_in(then))
    assert after.restore(wiring.checkpoints).step == 3
    assert after.scaler.is_enabled() == (then == "fp16")
