"""The same rows give the same loss, however they are laid into forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests.tiny_model import MODEL
from training_image.batches import isolates, micro_batches, step_order, supervised_tokens, token_loss
from training_image.data.examples import IGNORED, Sample


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def samples(lengths: list[int], pad: int = 2) -> list[Sample]:
    generator = torch.Generator().manual_seed(sum(lengths))
    made = []
    for index, length in enumerate(lengths):
        ids = torch.randint(3, 500, (length,), generator=generator).tolist()
        ids[-1] = pad  # the answer ends with the very token that pads
        made.append(Sample(str(index), ids, [IGNORED] * (length - 2) + ids[-2:]))
    return made


LENGTHS = [9, 30, 4, 17, 23, 12, 28, 6]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("tokens", [16, 64, 4096])
def test_every_layout_gives_the_loss_of_the_rows_alone(model: Any, packed: bool, tokens: int) -> None:
    rows = samples(LENGTHS)
    alone = 0.0
    for row in rows:
        logits = model(torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        alone += float(torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum"))
    laid = micro_batches(rows, tokens, packed, pad=2)
    with torch.no_grad():
        total = sum(float(token_loss(model, batch)) for batch in laid)
    assert total == pytest.approx(alone, rel=1e-5)
    assert sum(len(batch.targets) for batch in laid) == supervised_tokens(rows) == 2 * len(rows)


def test_gradients_do_not_depend_on_the_layout(model: Any) -> None:
    rows, found = samples(LENGTHS), []
    for tokens, packed in ((4096, True), (32, True), (64, False)):
        model.zero_grad()
        for batch in micro_batches(rows, tokens, packed, pad=2):
            (token_loss(model, batch) / supervised_tokens(rows)).backward()
        found.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]).clone())
    model.zero_grad()
    for other in found[1:]:
        assert float((found[0] - other).norm() / found[0].norm()) < 1e-5


def test_packed_rows_are_kept_apart(model: Any) -> None:
    assert isolates(model, samples(LENGTHS))


class Leaky(torch.nn.Module):
    """A model whose attention does not look at positions to keep packed rows apart."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, **given: Any) -> Any:
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        return self.inner(**given)


def test_a_model_that_leaks_is_found_out(model: Any) -> None:
    assert not isolates(Leaky(model), samples(LENGTHS))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(3, 40), min_size=1, max_size=20), st.integers(16, 200), st.booleans())
def test_no_row_is_lost_or_laid_twice(lengths: list[int], tokens: int, packed: bool) -> None:
    rows = samples(lengths)
    laid = micro_batches(rows, tokens, packed, pad=2)
    assert sum(len(batch.targets) for batch in laid) == supervised_tokens(rows)
    for batch in laid:
        rows_in = int((batch.position_ids == 0).sum())
        assert batch.input_ids.numel() <= tokens or rows_in == 1


@given(st.integers(1, 200), st.integers(0, 5), st.integers(0, 3))
def test_the_order_of_an_epoch_is_a_permutation_of_its_own(rows: int, epoch: int, seed: int) -> None:
    order = step_order(rows, epoch, seed)
    assert sorted(order) == list(range(rows))
    assert order == step_order(rows, epoch, seed)
