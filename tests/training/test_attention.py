"""Rows behind a common beginning attend as they do alone, by whichever kernel; the kernel is chosen by facts."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests.tiny_model import MODEL
from training_image import attention, isolation
from training_image.attention import Kernel, attend, kernel_for, kernel_here, rows_at
from training_image.batches import micro_batches, supervised_tokens, token_loss
from training_image.isolation import choose_layout

from .test_batches import LENGTHS, samples


def reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, at_q: torch.Tensor, at_k: torch.Tensor,
    longest_q: int, longest_k: int, scale: float | None = None, **options: Any,
) -> torch.Tensor:  # fmt: skip
    """What flash_attn_varlen_func and varlen_attn say of themselves: each row causal, aligned to its last key."""
    assert at_q.dtype == at_k.dtype == torch.int32
    assert options.pop("window_size", (-1, 0)) == (-1, 0)
    assert options.pop("causal", True)
    options.pop("enable_gqa", None)
    scale = options.pop("softmax_scale", scale)
    assert not options
    assert (longest_q, longest_k) == (int(at_q.diff().max()), int(at_k.diff().max()))
    made = []
    for row in range(len(at_q) - 1):
        own, seen = slice(at_q[row], at_q[row + 1]), slice(at_k[row], at_k[row + 1])
        q, k, v = (each.transpose(0, 1) for each in (query[own], key[seen], value[seen]))
        k, v = (each.repeat_interleave(q.shape[0] // k.shape[0], 0) for each in (k, v))
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        made.append(torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(0, 1))
    return torch.cat(made)


@given(st.integers(0, 12), st.lists(st.integers(1, 30), min_size=1, max_size=9), st.booleans())
def test_rows_attend_as_under_one_mask(beginning: int, lengths: list[int], ragged: bool) -> None:
    lengths = sorted(lengths, reverse=True)
    owner = torch.tensor([-1] * beginning + [row for row, length in enumerate(lengths) for _ in range(length)])
    mask = ((owner[:, None] == owner[None, :]) | (owner == -1)[None, :]).tril()[None, None]
    generator = torch.Generator().manual_seed(sum(lengths))
    parts = [
        torch.randn(1, heads, len(owner), 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    weights = torch.randn(1, len(owner), 4, 8, generator=generator, dtype=torch.float64)
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.attention.varlen.varlen_attn", reference)
        found = []
        for rows in (None, rows_at(beginning, lengths, ragged=ragged)):
            made, _ = attend(module, *parts, mask, scaling=0.3, packed_rows=rows)
            found.append((made, *torch.autograd.grad((made * weights).sum(), parts)))
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) < 1e-12


@pytest.mark.parametrize("kernel", ["flash_attn", "torch"])
def test_a_kernel_for_rows_of_any_length_is_tried_and_taken(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is at hand: what the kernels document stands in for them; the tokens, keys and gradients are ours."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="sdpa").eval()
    for module in (attention, isolation):
        monkeypatch.setattr(module, "kernel_here", lambda device, dtype: kernel)
    package = types.ModuleType("flash_attn")
    package.flash_attn_varlen_func = reference  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference)
    rows = samples(LENGTHS, alike=6)
    assert choose_layout(model, rows) == "ragged"
    assert choose_layout(model, rows, ragged=False) == "shared"  # attention: sdpa, in so many words
    found = []
    for layout in ("padded", "ragged"):
        model.zero_grad()
        for batch in micro_batches(rows, 64, layout, 2):
            (token_loss(model, batch) / supervised_tokens(rows)).backward()
        found.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]).clone())
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-5


@pytest.mark.parametrize("wrong", ["forward", "backward", "error"])
def test_a_kernel_that_is_wrong_is_not_taken(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="sdpa").eval()

    def broken(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *where: Any, **options: Any) -> Any:
        if wrong == "error":
            raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")
        if wrong == "backward":
            return reference(query, key.detach(), value.detach(), *where, **options)
        return reference(query, key.roll(1, 0), value, *where, **options)

    for module in (attention, isolation):
        monkeypatch.setattr(module, "kernel_here", lambda device, dtype: "torch")
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", broken)
    assert choose_layout(model, samples(LENGTHS, alike=6)) == "shared"


CAPABILITIES = (None, (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0))
INSTALLED: tuple[tuple[Kernel, ...], ...] = ((), ("torch",), ("flash_attn",), ("torch", "flash_attn"))


@pytest.mark.parametrize("installed", INSTALLED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_kernel_is_chosen_by_facts(
    capability: tuple[int, int] | None, dtype: torch.dtype, installed: tuple[Kernel, ...]
) -> None:
    found = kernel_for(capability, dtype, installed)
    able = capability in CAPABILITIES[3:] and dtype != torch.float32
    wanted = "flash_attn" if "flash_attn" in installed else "torch" if "torch" in installed else None
    assert found == (wanted if able else None)


def test_a_processor_has_no_such_kernel() -> None:
    assert kernel_here(torch.device("cpu"), torch.bfloat16) is None
