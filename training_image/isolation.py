"""Which layouts a model takes: tried on the very model before the training, never assumed.

A model may ignore a mask or positions (state-space layers, convolutions, code of its own), and nothing would fail: the
rows would see each other, and the loss would be wrong without a word. So three rows of the job itself are run together
and alone, and then together with the first row's tokens changed: what the others give must not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from training_image.attention import kernel_here
from training_image.batches import (
    Layout,
    MicroBatch,
    common_beginning,
    head_and_hidden,
    kept_logits,
    micro_batches,
    token_losses,
)
from training_image.data.examples import IGNORED, Sample
from training_image.model import evaluating

SAID: dict[Layout, str] = {
    "ragged": "rows are packed end to end behind the beginning that they share, for a kernel that takes any length",
    "shared": "rows are packed end to end behind the beginning that they share",
    "packed": "rows are packed end to end",
    "padded": "rows are padded: packed ones would see each other",
}
"""What the log says of a layout."""
_TRIED = 3
_LOGITS = 2**26
"""Most logits of one forward pass (256 MB in fp32)."""
_SAME_LOGITS = 1e-2
"""Difference that rounding in 16 bits explains, as a share of the largest logit."""


def choose_layout(model: Any, samples: Sequence[Sample], *, ragged: bool = True) -> Layout:
    """The fastest layout that keeps rows apart on this model: ragged where it may be, shared, packed or padded."""
    if ragged and _takes_ragged(model) and isolates(model, samples, "ragged"):
        return "ragged"
    if _plain_attention(model) and isolates(model, samples, "shared"):
        return "shared"
    return "packed" if isolates(model, samples, "packed") else "padded"


def isolates(model: Any, samples: Sequence[Sample], layout: Layout) -> bool:
    """Whether rows laid end to end neither see each other nor differ from the rows alone, on this very model."""
    rows = sorted((sample for sample in samples if _asks(sample)), key=lambda sample: len(sample.input_ids))[:_TRIED]
    if len(rows) < 2:
        return False
    try:
        with evaluating(model):
            batch = _together(rows, layout)
            together = _losses(model, batch)
            apart = _agrees(model, rows, together) and not _leaks(model, rows, batch, together, layout)
            return apart and (layout != "ragged" or _same_gradient(model, rows, batch))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError):
        return False  # a model of its own mind about masks or positions, or a kernel that is not for it


def takes_chunks(model: Any, samples: Sequence[Sample]) -> int | None:
    """Positions of a chunk of logits, where hidden states through the head are the model's logits; else None."""
    rows = sorted((sample for sample in samples if _asks(sample)), key=lambda sample: len(sample.input_ids))[:1]
    if not rows:
        return None
    config = model.config.get_text_config()
    if getattr(config, "final_logit_softcapping", None):  # it bends large logits only, which these may not be
        return None
    batch = micro_batches(rows, 1, "padded", 0)[0].to(model.device)
    try:
        with evaluating(model):
            whole = kept_logits(model, batch).float()
            head, hidden = head_and_hidden(model, batch)
            same = (whole - head(hidden)).abs().max() <= _SAME_LOGITS * whole.abs().max()
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return None
    return max(1, _LOGITS // config.vocab_size) if bool(same) else None


def _asks(sample: Sample) -> bool:
    return any(label != IGNORED for label in sample.labels[1:])


def _plain_attention(model: Any) -> bool:
    """Full causal attention under a kernel that takes a mask of ours; a mask would switch a sliding window off."""
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    layers = DynamicCache(config=model.config.get_text_config()).layers
    return all(type(layer) is DynamicLayer for layer in layers)


def _takes_ragged(model: Any) -> bool:
    there = model.config._attn_implementation == "sdpa" and kernel_here(model.device, model.dtype) is not None
    return there and _plain_attention(model)


def _same_gradient(model: Any, rows: Sequence[Sample], together: MicroBatch) -> bool:
    """Whether the trained weights get the gradient of the rows alone: of a kernel that no test here has seen."""
    alone = [micro_batches([row], 1, "padded", 0)[0] for row in rows]
    one, other = _gradient(model, alone), _gradient(model, [together])
    return bool((one - other).norm() <= _tolerance(model) * one.norm())


def _gradient(model: Any, batches: Sequence[MicroBatch]) -> Tensor:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.enable_grad():
        total = torch.stack([_losses(model, batch).sum() for batch in batches]).sum()
    found = torch.autograd.grad(total, trained, allow_unused=True)
    return torch.cat([grad.flatten().float() for grad in found if grad is not None])


def _agrees(model: Any, rows: Sequence[Sample], together: Tensor) -> bool:
    alone = torch.cat([_losses(model, micro_batches([row], 1, "padded", 0)[0]) for row in _order(rows)])
    return bool((alone - together).abs().max() <= _tolerance(model) * alone.abs().max().clamp(min=1.0))


def _leaks(model: Any, rows: Sequence[Sample], batch: MicroBatch, before: Tensor, layout: Layout) -> bool:
    """Whether the losses of the later rows move when the first row's own tokens change. Same shapes, so no rounding."""
    first = _order(rows)[0]
    own = slice(common_beginning(rows) if layout != "packed" else 0, len(first.input_ids))
    changed = batch.input_ids.clone()
    changed[0, own] = (changed[0, own] + 1) % model.config.get_text_config().vocab_size
    later = sum(label != IGNORED for label in first.labels[1:])
    after = _losses(model, replace(batch, input_ids=changed))
    return bool((before[later:] - after[later:]).abs().max() > 1e-3)


def _order(rows: Sequence[Sample]) -> list[Sample]:
    """The rows in the order in which `micro_batches` lays them."""
    return sorted(rows, key=lambda sample: -len(sample.input_ids))


def _together(rows: Sequence[Sample], layout: Layout) -> MicroBatch:
    return micro_batches(rows, sum(len(row.input_ids) for row in rows), layout, 0)[0]


def _losses(model: Any, batch: MicroBatch) -> Tensor:
    return token_losses(model, batch.to(model.device))


def _tolerance(model: Any) -> float:
    """Relative difference that rounding explains."""
    return 1e-3 if model.dtype == torch.float32 else 0.1
