"""The same rows give the same loss, however they are laid into forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from tests.tiny_model import MODEL
from training_image import model as models
from training_image.batches import Layout, common_beginning, micro_batches, step_order, supervised_tokens, token_loss
from training_image.data.examples import IGNORED, Sample
from training_image.errors import InputError
from training_image.isolation import SAID, choose_layout, isolates, takes_chunks
from training_image.spec import Spec
from training_image.train import Trainer

LAYOUTS: tuple[Layout, ...] = ("shared", "packed", "padded")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation=request.param).eval()


def samples(lengths: list[int], pad: int = 2, alike: int = 0) -> list[Sample]:
    """Rows whose last two tokens are supervised, the first ``alike`` tokens the same in all."""
    generator = torch.Generator().manual_seed(sum(lengths))
    made = []
    for index, length in enumerate(lengths):
        ids = [*range(10, 10 + alike), *torch.randint(50, 500, (length,), generator=generator).tolist()]
        ids[-1] = pad  # the answer ends with the very token that pads
        made.append(Sample(str(index), ids, [IGNORED] * (len(ids) - 2) + ids[-2:]))
    return made


LENGTHS = [9, 30, 4, 17, 23, 12, 28, 6]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tokens", [16, 64, 4096])
@pytest.mark.parametrize("alike", [0, 7])
def test_every_layout_gives_the_loss_of_the_rows_alone(model: Any, layout: Layout, tokens: int, alike: int) -> None:
    rows = samples(LENGTHS, alike=alike)
    alone = 0.0
    for row in rows:
        logits = model(torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        alone += float(torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum"))
    laid = micro_batches(rows, tokens, layout, pad=2)
    with torch.no_grad():
        total = sum(float(token_loss(model, batch)) for batch in laid)
    assert total == pytest.approx(alone, rel=1e-5)
    assert sum(len(batch.targets) for batch in laid) == supervised_tokens(rows) == 2 * len(rows)


def test_gradients_do_not_depend_on_the_layout(model: Any) -> None:
    rows, found = samples(LENGTHS, alike=5), []
    for layout in LAYOUTS:
        for tokens in (4096, 64, 16):
            model.zero_grad()
            for batch in micro_batches(rows, tokens, layout, pad=2):
                (token_loss(model, batch) / supervised_tokens(rows)).backward()
            found.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]).clone())
    model.zero_grad()
    for other in found[1:]:
        assert float((found[0] - other).norm() / found[0].norm()) < 1e-5


def test_a_shared_beginning_is_laid_once() -> None:
    rows = samples([5, 6, 7], alike=20)
    assert common_beginning(rows) == 20
    (laid,) = micro_batches(rows, 4096, "shared", pad=2)
    assert laid.input_ids.shape == (1, 20 + 5 + 6 + 7)
    assert int((laid.position_ids == 20).sum()) == 3


def test_supervised_tokens_of_a_shared_beginning_count_in_every_row() -> None:
    rows = [
        Sample("a", [1, 2, 3, 4, 5], [IGNORED, 2, IGNORED, 4, 5]),
        Sample("b", [1, 2, 3, 6], [IGNORED, 2, IGNORED, 6]),
    ]
    assert common_beginning(rows) == 1
    (laid,) = micro_batches(rows, 4096, "shared", pad=0)
    assert laid.targets.tolist() == [2, 4, 5, 2, 6]
    assert laid.sources.tolist() == [0, 2, 3, 0, 6]
    assert laid.input_ids.tolist() == [[1, 2, 3, 4, 5, 2, 3, 6]]


def test_a_row_that_is_the_beginning_of_another(model: Any) -> None:
    rows = samples([9, 12], alike=6)
    rows.append(Sample("short", rows[0].input_ids[:8], [IGNORED] * 7 + rows[0].input_ids[7:8]))
    with torch.no_grad():
        found = [sum(float(token_loss(model, b)) for b in micro_batches(rows, 4096, layout, 2)) for layout in LAYOUTS]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_packed_rows_are_kept_apart(model: Any) -> None:
    rows = samples(LENGTHS, alike=4)
    assert isolates(model, rows, "shared")
    assert isolates(model, rows, "packed")
    assert choose_layout(model, rows) == "shared"


def test_logits_in_chunks_give_the_same_gradient() -> None:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    rows = [Sample(row.id, row.input_ids, list(row.input_ids)) for row in samples(LENGTHS)]
    (batch,) = micro_batches(rows, 4096, "packed", pad=2)
    found = []
    for chunk in (None, 10):
        model.zero_grad()
        loss = token_loss(model, batch, chunk)
        loss.backward()
        weights = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
        found.append(torch.cat([loss.detach()[None], *weights]))
    assert float((found[0] - found[1]).norm()) < 1e-6 * float(found[0].norm())  # rounding, on the scale of all
    assert takes_chunks(model, rows) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("more", "plain"), [({}, True), ({"logits_scaling": 1.05}, False)])
def test_a_head_that_is_more_than_a_matrix_is_not_cut(dtype: torch.dtype, more: dict[str, float], plain: bool) -> None:
    config = GraniteConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, **more
    )
    torch.manual_seed(0)
    model = get_peft_model(GraniteForCausalLM(config).to(dtype), LoraConfig(r=4, target_modules="all-linear"))
    assert (takes_chunks(model, samples(LENGTHS)) is not None) == plain


def test_a_head_that_bends_its_logits_is_not_cut_however_small_they_are() -> None:
    config = Gemma2Config(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=30.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = get_peft_model(Gemma2ForCausalLM(config), LoraConfig(r=4, target_modules="all-linear"))
    assert takes_chunks(model, samples(LENGTHS)) is None


def test_a_sliding_window_is_not_masked_away() -> None:
    config = MistralConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    rows = samples(LENGTHS, alike=4)
    layout = choose_layout(model, rows)
    assert layout != "shared"
    with torch.no_grad():
        found = [
            sum(float(token_loss(model, b)) for b in micro_batches(rows, 4096, each, 2)) for each in (layout, "padded")
        ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


class Leaky(torch.nn.Module):
    """A model whose attention looks neither at masks nor at positions to keep packed rows apart."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, **given: Any) -> Any:
        given.pop("packed_rows", None)
        mask = given["attention_mask"]
        if mask is None or mask.dim() == 4:
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        return self.inner(**given)


def test_a_model_that_leaks_is_found_out(model: Any) -> None:
    rows = samples(LENGTHS, alike=4)
    assert not isolates(Leaky(model), rows, "shared")
    assert not isolates(Leaky(model), rows, "packed")
    assert choose_layout(Leaky(model), rows) == "padded"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_that_runs_on_through_packed_rows_is_found_out(dtype: torch.dtype) -> None:
    config = MambaConfig(vocab_size=600, hidden_size=32, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    assert choose_layout(MambaForCausalLM(config).to(dtype).eval(), samples(LENGTHS, alike=4)) == "padded"


@pytest.mark.parametrize("batching", ["auto", "padded", "packed"])
@pytest.mark.parametrize("takes", [True, False])
def test_the_layout_is_said_and_packed_rows_are_refused_where_they_would_see_each_other(
    batching: str, takes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"batching": batching}
    spec = Spec.model_validate(
        {"job": "j", "model": {"id": str(MODEL)}, "data": {"train": "t"}, "task": {"type": "qa"}, "train": train}
    )
    setting = models.choose(spec, MODEL)
    config = MambaConfig(vocab_size=600, hidden_size=32, num_hidden_layers=2, state_size=4)
    base = models.load_base(setting) if takes else MambaForCausalLM(config)
    made = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear" if takes else ["in_proj"]))
    if batching == "packed" and not takes:
        with pytest.raises(InputError, match="lets packed rows see each other"):
            Trainer(made, samples(LENGTHS), setting, spec.train, 3e-3, 2)
        return
    trainer = Trainer(made, samples(LENGTHS), setting, spec.train, 3e-3, 2)
    assert trainer.layout == ("shared" if takes and batching != "padded" else "padded")
    said = "rows are padded, as the job says" if batching == "padded" else SAID[trainer.layout]
    assert said in capsys.readouterr().out


@settings(max_examples=50)
@given(st.lists(st.integers(3, 40), min_size=1, max_size=20), st.integers(16, 200), st.sampled_from(LAYOUTS))
def test_no_row_is_lost_or_laid_twice(lengths: list[int], tokens: int, layout: Layout) -> None:
    rows = samples(lengths, alike=3)
    laid = micro_batches(rows, tokens, layout, pad=2)
    assert sum(len(batch.targets) for batch in laid) == supervised_tokens(rows)
    for batch in laid:
        assert batch.input_ids.numel() <= tokens or len(batch.targets) == 2


@given(st.lists(st.integers(3, 400), min_size=1, max_size=20), st.integers(16, 4096))
def test_less_than_half_of_what_is_padded_together_is_padding(lengths: list[int], tokens: int) -> None:
    for batch in micro_batches(samples(lengths), tokens, "padded", pad=2):
        assert batch.attention_mask is not None
        assert float(batch.attention_mask.float().mean()) > 0.5 or len(batch.input_ids) == 1
        assert int(batch.attention_mask.sum(1).min()) >= batch.input_ids.shape[1] / 2


@given(st.integers(1, 200), st.integers(0, 5), st.integers(0, 3))
def test_the_order_of_an_epoch_is_a_permutation_of_its_own(rows: int, epoch: int, seed: int) -> None:
    order = step_order(rows, epoch, seed)
    assert sorted(order) == list(range(rows))
    assert order == step_order(rows, epoch, seed)
