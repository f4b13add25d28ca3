"""The tiny model in fp32, loaded once, and rows that somebody answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_model import MODEL
from training_image.evaluate.outcomes import Evaluation, Outcome
from training_image.spec import Spec


@pytest.fixture(scope="session")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


def answered(pairs: Sequence[tuple[str, str]], **fields: Sequence[Any]) -> tuple[Outcome, ...]:
    """Outcomes of (reference, prediction) pairs; ``fields`` are columns of the rows, ``group`` their groups."""
    groups = fields.pop("group", [None] * len(pairs))
    return tuple(
        Outcome(f"row-{i}", (true,), said, fields={n: values[i] for n, values in fields.items()}, group=groups[i])
        for i, (true, said) in enumerate(pairs)
    )


def evaluation(
    name: str, outcomes: tuple[Outcome, ...], value: float, labels: Sequence[str] = ("a", "b")
) -> Evaluation:
    return Evaluation(name, outcomes, {"accuracy": value}, {"accuracy": (value, value)}, 0.0, [], list(labels))


def spec_of(task: str = "classification", metric: str = "accuracy", **evaluate: Any) -> Spec:
    return Spec.model_validate(
        {
            "schema": 1,
            "job": "judged-00000000",
            "model": {"id": str(MODEL)},
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "task": {"type": task, "metric": metric},
            "evaluate": {"resamples": 500, **evaluate},
        }
    )
