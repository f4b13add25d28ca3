"""Trainings that go wrong are told apart by the loop and by the guards: each guard by the curves of a real one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.tiny_model import MODEL, words
from training_image import model as models
from training_image.batches import micro_batches, supervised_tokens, token_loss
from training_image.data.examples import Sample
from training_image.errors import Diverged
from training_image.evaluate.guards import guards
from training_image.model import evaluating
from training_image.train import Trainer, _watch, plan_steps

from .loop import hooks
from .test_model import make_samples, make_spec

ROWS = make_samples(16)


def sentences(count: int) -> list[Sample]:
    """Rows that the base knows well, and that no few steps teach anew."""
    draw, tokenizer = random.Random(0), AutoTokenizer.from_pretrained(str(MODEL))
    words_of = {"name": words.NAMES, "person": words.PEOPLE, "quality": words.QUALITIES, "time": words.TIMES}
    nouns = [noun for kind in words.KNOWN.values() for noun in kind]
    made = []
    for place in range(count):
        chosen = {part: draw.choice(some) for part, some in (words_of | {"noun": nouns}).items()}
        ids = tokenizer(draw.choice(words.SENTENCES).format(**chosen))["input_ids"]
        made.append(Sample(str(place), ids, list(ids)))
    return made


def trained(
    folder: Path,
    rate: float,
    spoil: Callable[[Any], None] | None = None,
    rows: Sequence[Sample] = ROWS[:8],
    **train: Any,
) -> Any:
    """A training on eight rows of random tokens, validated on eight others, which nothing can be learned for.

    ``spoil``: done to the model before it.
    """
    spec = make_spec(**{"batch_size": 8, "patience": 0, "warmup": 0.0} | train)
    setting = models.choose(spec, folder)
    model = models.add_adapter(models.load_base(setting), spec)
    if spoil is not None:
        spoil(model)

    def validate(model: Any) -> tuple[str, float, dict[str, float]]:
        with evaluating(model):
            (batch,) = micro_batches(ROWS[8:], 4096, "packed", 2)
            loss = float(token_loss(model, batch)) / supervised_tokens(ROWS[8:])
        return "loss", loss, {"validation/loss": loss}

    trainer = Trainer(model, rows, setting, spec.train, rate, 2)
    wiring = hooks(folder, [], validate)
    return trainer.fit(plan_steps(spec.train, len(rows), None), wiring, trainer.restore(wiring.checkpoints))


@pytest.mark.parametrize(
    ("rate", "epochs", "code", "evidence"),
    [
        (1e-8, 12.0, "learning_rate_too_low", "the training loss hardly moved"),
        (3e-3, 30.0, "overfitting", "while training loss fell"),
    ],
)
def test_a_real_training_that_goes_wrong_raises_its_guard(
    tmp_path: Path, rate: float, epochs: float, code: str, evidence: str
) -> None:
    (found,) = guards(trained(tmp_path, rate, epochs=epochs).history)
    assert found["code"] == code
    assert evidence in found["evidence"]


def test_a_rate_that_destroys_what_the_base_knew_raises_its_guard(tmp_path: Path) -> None:
    rows = sentences(128)
    found = guards(trained(tmp_path, 0.03, rows=rows, epochs=1.0, warmup=0.5, scheduler="constant").history)
    assert [guard["code"] for guard in found] == ["learning_rate_too_high"]
    assert "the training loss rose from" in found[0]["evidence"]


def test_an_adapter_that_no_gradient_reaches_raises_its_guard(tmp_path: Path) -> None:
    def cut(model: Any) -> None:
        """With both halves at zero neither has a gradient."""
        for name, weight in model.named_parameters():
            if "lora_A" in name:
                weight.data.zero_()

    found = guards(trained(tmp_path, 3e-3, cut, epochs=12.0).history)
    assert [guard["code"] for guard in found] == ["dead_adapter"]
    assert "the gradient norm never passed" in found[0]["evidence"]


def test_a_loss_that_is_no_number_ends_a_training_at_its_step(tmp_path: Path) -> None:
    def spoil(model: Any) -> None:
        model.get_base_model().get_decoder().norm.weight.data[0] = math.nan

    with pytest.raises(Diverged, match=r"^train/loss is nan at step 1$"):
        trained(tmp_path, 3e-3, spoil, epochs=2.0)


def curve(*losses: float, norm: float = 1.0) -> list[dict[str, float]]:
    lines = [{"step": float(at), "train/loss": loss, "train/grad_norm": 1.0} for at, loss in enumerate(losses, 1)]
    return [*lines[:-1], lines[-1] | {"train/grad_norm": norm}]


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(
    ("history", "branch", "even_scaled"),
    [
        (curve(2.0, math.nan), "train/loss is nan at step 2", True),
        (curve(2.0, math.inf), "train/loss is inf at step 2", True),
        (curve(2.0, 2.0, norm=math.inf), "train/grad_norm is inf at step 2", False),
        (curve(2.0, 2.0, norm=math.nan), "train/grad_norm is nan at step 2", False),
        (curve(*[1.0] * 5, *[7.0] * 5), "the loss rose from 1.00 to 7.00 by step 10", True),
        (curve(*[1.0] * 5, *[5.9] * 5), None, False),
    ],
)
def test_each_way_to_diverge_says_which_it_was(
    history: list[dict[str, float]], branch: str | None, even_scaled: bool, scaled: bool
) -> None:
    """With a scaler a norm that is no number is a step that was skipped."""
    if branch is None or (scaled and not even_scaled):
        _watch(history, scaled=scaled)
        return
    with pytest.raises(Diverged) as error:
        _watch(history, scaled=scaled)
    assert error.value.message == branch
