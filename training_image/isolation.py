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

from training_image.batches import Layout, MicroBatch, common_beginning, micro_batches, token_loss, token_losses
from training_image.data.examples import IGNORED, Sample

_TRIED = 3
_LOGITS = 2**26
"""Most logits of one forward pass (256 MB in fp32)."""


def choose_layout(model: Any, samples: Sequence[Sample]) -> Layout:
    """The fastest layout that keeps rows apart on this model: shared, packed or padded."""
    if _plain_attention(model) and isolates(model, samples, "shared"):
        return "shared"
    return "packed" if isolates(model, samples, "packed") else "padded"


def isolates(model: Any, samples: Sequence[Sample], layout: Layout) -> bool:
    """Whether rows laid end to end neither see each other nor differ from the rows alone, on this very model."""
    rows = sorted((sample for sample in samples if _asks(sample)), key=lambda sample: len(sample.input_ids))[:_TRIED]
    if len(rows) < 2:
        return False
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _agrees(model, rows, layout) and not _leaks(model, rows, layout)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError):  # a model of its own mind about masks or positions
        return False
    finally:
        model.train(training)


def takes_chunks(model: Any, samples: Sequence[Sample]) -> int | None:
    """Positions of a chunk of logits, where hidden states through the head are the model's logits; else None."""
    rows = sorted((sample for sample in samples if _asks(sample)), key=lambda sample: len(sample.input_ids))[:1]
    if not rows:
        return None
    batch = micro_batches(rows, 1, "padded", 0)[0].to(model.device)
    batch = replace(batch, sources=batch.sources.repeat(2), targets=batch.targets.repeat(2))
    try:
        with torch.no_grad():
            whole, chunked = (float(token_loss(model, batch, chunk)) for chunk in (None, 1))
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return None
    same = abs(whole - chunked) <= _tolerance(model) * max(1.0, abs(whole))
    return max(1, _LOGITS // model.config.get_text_config().vocab_size) if same else None


def _asks(sample: Sample) -> bool:
    return any(label != IGNORED for label in sample.labels[1:])


def _plain_attention(model: Any) -> bool:
    """Full causal attention under a kernel that takes a mask of ours; a mask would switch a sliding window off."""
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    layers = DynamicCache(config=model.config.get_text_config()).layers
    return all(type(layer) is DynamicLayer for layer in layers)


def _agrees(model: Any, rows: Sequence[Sample], layout: Layout) -> bool:
    alone = torch.cat([_losses(model, micro_batches([row], 1, "padded", 0)[0]) for row in _order(rows)])
    together = _losses(model, _together(rows, layout))
    return bool((alone - together).abs().max() <= _tolerance(model) * alone.abs().max().clamp(min=1.0))


def _leaks(model: Any, rows: Sequence[Sample], layout: Layout) -> bool:
    """Whether the losses of the later rows move when the first row's own tokens change. Same shapes, so no rounding."""
    batch = _together(rows, layout)
    first = _order(rows)[0]
    own = slice(common_beginning(rows) if layout == "shared" else 0, len(first.input_ids))
    changed = batch.input_ids.clone()
    changed[0, own] = (changed[0, own] + 1) % model.config.get_text_config().vocab_size
    later = sum(label != IGNORED for label in first.labels[1:])
    before, after = (_losses(model, each)[later:] for each in (batch, replace(batch, input_ids=changed)))
    return bool((before - after).abs().max() > 1e-3)


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
