"""From the rows of one optimizer step to micro-batches: packed end to end, or padded with rows of like length.

Packed rows are kept apart by ``position_ids`` that start anew with each row, no mask and no cache: transformers then
builds a block-diagonal mask. A mask of ones, or a cache, would let the rows see each other without a word
(`isolates` looks).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training_image.data.examples import IGNORED, Sample


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tensors of one forward pass, ``[rows, tokens]``; packed: one row."""

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    """None when packed."""
    sources: Tensor
    """Flat positions whose next token is supervised, ``[supervised]``."""
    targets: Tensor
    """Those tokens, ``[supervised]``."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        moved = [each.to(device) for each in (self.input_ids, self.position_ids, self.sources, self.targets)]
        return MicroBatch(moved[0], moved[1], mask, moved[2], moved[3])


def supervised_tokens(samples: Sequence[Sample]) -> int:
    """Tokens that the loss of these rows is a mean over; a row's first token has nothing before it."""
    return sum(label != IGNORED for sample in samples for label in sample.labels[1:])


def step_order(rows: int, epoch: int, seed: int) -> list[int]:
    """The order of the rows in an epoch: a function of seed and epoch alone, so that a resume finds its place."""
    order = list(range(rows))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return order


def micro_batches(samples: Sequence[Sample], tokens: int, packed: bool, pad: int) -> list[MicroBatch]:
    """Lay one step's rows into forward passes of at most ``tokens`` tokens (one long row may be more)."""
    rows = sorted(samples, key=lambda sample: -len(sample.input_ids))
    groups: list[list[Sample]] = []
    for sample in rows:
        for group in groups:
            if _size([*group, sample], packed) <= tokens:
                group.append(sample)
                break
        else:
            groups.append([sample])
    return [_packed(group) if packed else _padded(group, pad) for group in groups]


def _size(group: Sequence[Sample], packed: bool) -> int:
    lengths = [len(sample.input_ids) for sample in group]
    return sum(lengths) if packed else max(lengths) * len(lengths)


def _packed(group: Sequence[Sample]) -> MicroBatch:
    ids = [token for sample in group for token in sample.input_ids]
    positions = [position for sample in group for position in range(len(sample.input_ids))]
    labels = [label for sample in group for label in (IGNORED, *sample.labels[1:])]
    row = torch.tensor([labels])
    sources, targets = _supervised(row)
    return MicroBatch(torch.tensor([ids]), torch.tensor([positions]), None, sources, targets)


def _padded(group: Sequence[Sample], pad: int) -> MicroBatch:
    width = max(len(sample.input_ids) for sample in group)
    ids = torch.full((len(group), width), pad)
    labels = torch.full((len(group), width), IGNORED)
    mask = torch.zeros((len(group), width), dtype=torch.long)
    for row, sample in enumerate(group):
        length = len(sample.input_ids)
        ids[row, :length] = torch.tensor(sample.input_ids)
        labels[row, 1:length] = torch.tensor(sample.labels[1:])
        mask[row, :length] = 1
    positions = torch.arange(width).expand(len(group), -1).contiguous()
    sources, targets = _supervised(labels)
    return MicroBatch(ids, positions, mask, sources, targets)


def _supervised(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Flat positions before the supervised tokens, and the tokens; labels ``[rows, tokens]``, none at position 0."""
    flat = labels.flatten()
    places = (flat != IGNORED).nonzero()[:, 0]
    return places - 1, flat[places]


def token_loss(model: Any, batch: MicroBatch) -> Tensor:
    """Sum of the losses of the supervised tokens, in nats; only positions before one of them reach the vocabulary."""
    width = batch.input_ids.shape[1]
    columns = torch.unique(batch.sources % width)
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        logits_to_keep=columns,
    ).logits
    if logits.shape[1] != len(columns):  # a model without `logits_to_keep` gives them all
        logits = logits[:, columns]
    places = torch.searchsorted(columns, batch.sources % width)
    kept = logits[batch.sources // width, places].float()
    return torch.nn.functional.cross_entropy(kept, batch.targets, reduction="sum")


def isolates(model: Any, samples: Sequence[Sample]) -> bool:
    """Whether packed rows are kept apart on this very model: the losses of two rows packed and alone agree."""
    pair = sorted(samples, key=lambda sample: len(sample.input_ids))[:2]
    if len(pair) < 2:
        return False
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = [token_loss(model, _packed([sample]).to(model.device)) for sample in pair]
            # The later row alone would show a leak; the first never can.
            together = token_loss(model, _packed(pair).to(model.device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError):  # a model of its own mind about positions
        return False
    finally:
        model.train(training)
    expected = float(sum(alone))
    allowed = 1e-4 if alone[0].dtype == torch.float32 and model.dtype == torch.float32 else 2e-2
    return abs(float(together) - expected) <= allowed * max(1.0, abs(expected))
