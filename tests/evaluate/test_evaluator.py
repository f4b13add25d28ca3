"""What an evaluation's rows say of themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from tests.evaluate.conftest import spec_of
from tests.tiny_model import tasks
from training_image.data import Renderer, load_splits, render_splits, renderer_of
from training_image.data.problems import DataError
from training_image.evaluate import Evaluator
from training_image.evaluate import evaluator as evaluators
from training_image.evaluate.evaluator import TIMED_ROWS
from training_image.screen import that_fit
from training_image.spec import Data


def test_rows_tell_their_group_by_a_number(tokenizer: Any, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path, "sorts", train=60, validation=20, test=40)
    spec = spec_of()
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"group": "source"})})
    splits = load_splits(spec, folder)
    found = Evaluator(spec, splits, Renderer(tokenizer, spec, splits.labels)).classical()
    sources = list(dict.fromkeys(row.fields["source"] for row in splits.test))
    assert [line["group"] for line in found.predictions] == [sources.index(row.fields["source"]) for row in splits.test]
    assert found.as_json()["groups"] == len(sources) > 1


@pytest.mark.parametrize(("validation", "timed"), [(8, 8), (0, TIMED_ROWS)])
def test_an_evaluation_is_foretold_with_and_without_validation_rows(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: int, timed: int
) -> None:
    """By a clock that goes on by one second with each row that is asked."""
    folder = tasks.write(tmp_path, "colours", train=90, validation=8, test=24)
    spec = spec_of()
    splits = load_splits(spec, folder)
    splits = replace(splits, validation=splits.train[:validation])
    evaluator = Evaluator(spec, splits, Renderer(tokenizer, spec, splits.labels))
    asked: list[int] = []

    def ask(model: Any, renderer: Any, prompts: list[list[int]], labels: list[str]) -> list[list[float]]:
        asked.append(len(prompts))
        return [[-1.0] * len(labels)] * len(prompts)

    monkeypatch.setattr(evaluators, "label_likelihoods", ask)
    monkeypatch.setattr(evaluators.time, "perf_counter", lambda: float(sum(asked)))
    assert evaluator.seconds_of(None) == validation + len(splits.test)
    assert asked == [timed]


def test_long_rows_stay_within_learned_positions(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i} " + "red blue green " * 60, "completion": "blue " * (i % 40 + 1)} for i in range(60)]
    tasks.write_jsonl(tmp_path / "train.jsonl", rows)
    data = {"train": "train.jsonl", "max_length": 128}
    spec = spec_of("instruction", "rouge_l").model_copy(update={"data": Data.model_validate(data)})
    few, enough = (
        GPT2Config(vocab_size=len(tokenizer), n_positions=n, n_embd=16, n_layer=1, n_head=2) for n in (223, 224)
    )
    splits = load_splits(spec, tmp_path)
    with pytest.raises(DataError, match="223 positions, a prompt with its answer may take 224"):
        renderer_of(tokenizer, spec, [], few)
    renderer = renderer_of(tokenizer, spec, [], enough)
    samples = render_splits(spec, splits, renderer)
    evaluator = Evaluator(spec, splits, renderer)
    model = GPT2LMHeadModel(enough).eval()
    for found in (evaluator.zero_shot(model), evaluator.few_shot(model)):
        assert found.n == len(samples["test"])


def test_a_screening_passes_over_what_no_cut_makes_fit(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"row {i}", "completion": "blue " * (200 if i % 9 == 0 else 3)} for i in range(60)]
    tasks.write_jsonl(tmp_path / "train.jsonl", rows)
    data = {"train": "train.jsonl", "max_length": 128}
    spec = spec_of("instruction", "rouge_l").model_copy(update={"data": Data.model_validate(data)})
    splits = load_splits(spec, tmp_path)
    kept = that_fit(splits, Renderer(tokenizer, spec))
    for (_, some), (_, every) in zip(kept.named(), splits.named(), strict=True):
        assert some == [row for row in every if len(row.answer) < 200]
    assert sum(len(some) for _, some in kept.named()) == 53
