"""From the rows of one optimizer step to micro-batches, and the loss of one.

Four layouts:

* ``shared``: rows laid end to end, and the tokens that all of them begin with (system turn, instruction) laid down
  once before them. Each token sees the common beginning and its own row only (`training_image.attention`; under eager
  a mask). The loss and its gradient are those of the rows one by one, at a part of their tokens. For plain causal
  attention under sdpa or eager.
* ``ragged``: the same, attended by a GPU's kernel for rows of any length.
* ``packed``: rows laid end to end, kept apart by ``position_ids`` that start anew with each row, no mask and no cache.
  For kernels that take no mask of ours (flash attention), and for sliding windows.
* ``padded``: rows of like length together, padded on the right: the shortest has half of the longest one's tokens at
  least, so that less than half of a micro-batch is padding.

A mask of ones, a cache or missing positions would let packed rows see each other without a word, so the layout is
tried on the very model before it is used (`training_image.isolation`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint

from training_image.attention import Rows, rows_at
from training_image.data.examples import IGNORED, Sample

Layout = Literal["ragged", "shared", "packed", "padded"]

ALIKE = 0.5
"""The shortest of the rows that are padded together has this share of the longest one's tokens. No higher, as each pass
more costs time of its own: on a GPU the base's four bits are written out in it."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tensors of one forward pass, ``[rows, tokens]``; one row unless padded."""

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    """``[rows, tokens]`` when padded, else None."""
    sources: Tensor
    """Flat positions whose next token is supervised, ``[supervised]``; one may stand there more than once."""
    targets: Tensor
    """Those tokens, ``[supervised]``."""
    rows: Rows | None = None
    """Where the rows lie when shared or ragged."""
    owners: Tensor | None = None
    """Which row each token is of then, -1 for the common beginning, ``[tokens]``."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        moved = [each.to(device) for each in (self.input_ids, self.position_ids, self.sources, self.targets)]
        rows = None if self.rows is None else self.rows.to(device)
        owners = None if self.owners is None else self.owners.to(device)
        return MicroBatch(moved[0], moved[1], mask, moved[2], moved[3], rows, owners)


def supervised_tokens(samples: Sequence[Sample]) -> int:
    """Tokens that the loss of these rows is a mean over; a row's first token has nothing before it."""
    return sum(label != IGNORED for sample in samples for label in sample.labels[1:])


def step_order(rows: int, epoch: int, seed: int) -> list[int]:
    """The order of the rows in an epoch: a function of seed and epoch alone, so that a resume finds its place."""
    order = list(range(rows))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return order


def part_of_process(samples: Sequence[Sample], rank: int, size: int) -> list[Sample]:
    """The rows of a step that one of ``size`` processes takes: dealt out from the longest to the shortest, there and
    back, so that all have about as many tokens, whatever micro-batches each makes of its own."""
    ordered = sorted(samples, key=lambda sample: -len(sample.input_ids))
    return [sample for place, sample in enumerate(ordered) if place % (2 * size) in (rank, 2 * size - 1 - rank)]


def micro_batches(samples: Sequence[Sample], tokens: int, layout: Layout, pad: int) -> list[MicroBatch]:
    """Lay one step's rows into forward passes of at most ``tokens`` tokens (one long row may be more)."""
    shares = layout in ("shared", "ragged")
    prefix = common_beginning(samples) if shares else 0
    groups: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.input_ids)):
        for group in groups:
            if _size([*group, sample], layout, prefix) <= tokens and (layout != "padded" or _alike(group[0], sample)):
                group.append(sample)
                break
        else:
            groups.append([sample])
    if shares:
        return [_shared(group, prefix, ragged=layout == "ragged") for group in groups]
    return [_packed(group) if layout == "packed" else _padded(group, pad) for group in groups]


def common_beginning(samples: Sequence[Sample]) -> int:
    """Number of leading tokens that all rows share and none supervises, leaving each row at least one of its own."""
    if len(samples) < 2:
        return 0
    low, high = min(s.input_ids for s in samples), max(s.input_ids for s in samples)
    differ = (i for i, (one, two) in enumerate(zip(low, high, strict=False)) if one != two)
    shared = next(differ, min(len(low), len(high)))
    most = min(min(len(sample.input_ids) - 1, _first_supervised(sample)) for sample in samples)
    return min(shared, most)


def _first_supervised(sample: Sample) -> int:
    return next((i for i, label in enumerate(sample.labels) if label != IGNORED), len(sample.labels))


def _alike(longer: Sample, shorter: Sample) -> bool:
    return len(shorter.input_ids) >= ALIKE * len(longer.input_ids)


def _size(group: Sequence[Sample], layout: Layout, prefix: int) -> int:
    lengths = [len(sample.input_ids) for sample in group]
    if layout == "padded":
        return max(lengths) * len(lengths)
    return sum(lengths) - prefix * (len(lengths) - 1)


def _shared(group: Sequence[Sample], prefix: int, *, ragged: bool) -> MicroBatch:
    ids = list(group[0].input_ids[:prefix])
    positions = list(range(prefix))
    owners = [-1] * prefix
    sources: list[int] = []
    targets: list[int] = []
    for row, sample in enumerate(group):
        start = len(ids) - prefix  # where the row's position 0 would lie, if its beginning stood there too
        for place, label in enumerate(sample.labels):
            if label != IGNORED and place > 0:
                sources.append(start + place - 1 if place > prefix else place - 1)
                targets.append(label)
        own = sample.input_ids[prefix:]
        ids += own
        positions += range(prefix, prefix + len(own))
        owners += [row] * len(own)
    rows = rows_at(prefix, [len(sample.input_ids) - prefix for sample in group], ragged=ragged)
    laid = [torch.tensor(each) for each in (sources, targets)]
    return MicroBatch(
        torch.tensor([ids]), torch.tensor([positions]), None, laid[0], laid[1], rows, torch.tensor(owners)
    )


def _packed(group: Sequence[Sample]) -> MicroBatch:
    ids = [token for sample in group for token in sample.input_ids]
    positions = [position for sample in group for position in range(len(sample.input_ids))]
    labels = [label for sample in group for label in (IGNORED, *sample.labels[1:])]
    sources, targets = _supervised(torch.tensor([labels]))
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


def token_loss(model: Any, batch: MicroBatch, chunk: int | None = None) -> Tensor:
    """Sum of the losses of the supervised tokens, in nats; only positions before one of them reach the vocabulary.

    ``chunk``: at most so many positions of logits exist at a time, and are computed again for the gradient; for models
    that `training_image.isolation.takes_chunks` has found to have a plain head.
    """
    if chunk is not None:
        return _chunked_loss(model, batch, chunk)
    return token_losses(model, batch).sum()


def token_losses(model: Any, batch: MicroBatch) -> Tensor:
    """The loss of each supervised token in nats, ``[supervised]``."""
    return torch.nn.functional.cross_entropy(kept_logits(model, batch).float(), batch.targets, reduction="none")


def kept_logits(model: Any, batch: MicroBatch) -> Tensor:
    """Logits before the supervised tokens, as the model gives them, ``[supervised, vocabulary]``."""
    width = batch.input_ids.shape[1]
    columns = torch.unique(batch.sources % width)
    logits = model(**_inputs(model, batch), logits_to_keep=columns).logits
    if logits.shape[1] != len(columns):  # a model without `logits_to_keep` gives them all
        logits = logits[:, columns]
    places = torch.searchsorted(columns, batch.sources % width)
    kept: Tensor = logits[batch.sources // width, places]
    return kept


def head_and_hidden(model: Any, batch: MicroBatch) -> tuple[Any, Tensor]:
    """The module that gives the logits, and the states before the supervised tokens, ``[supervised, width]``."""
    causal = model.get_base_model()
    hidden = causal.get_decoder()(**_inputs(model, batch)).last_hidden_state.flatten(0, 1)[batch.sources]
    return causal.get_output_embeddings(), hidden


def _chunked_loss(model: Any, batch: MicroBatch, chunk: int) -> Tensor:
    head = model.get_base_model().get_output_embeddings()
    if isinstance(head, FSDPModule):
        # Gathered once a pass: the processes that share it need not have as many chunks as each other.
        head.set_reshard_after_forward(False)
        head.set_reshard_after_backward(False)
        head.reshard()
    head, hidden = head_and_hidden(model, batch)

    def loss(part: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(head(part).float(), targets, reduction="sum")

    total = torch.zeros((), device=hidden.device)
    # Even ones: matrix libraries round a rest of a few rows coarsely.
    parts = max(1, math.ceil(len(batch.targets) / chunk))
    if parts == 1:
        return loss(hidden, batch.targets)
    for part, targets in zip(hidden.tensor_split(parts), batch.targets.tensor_split(parts), strict=True):
        total = total + checkpoint(loss, part, targets, use_reentrant=False)
    return total


def _inputs(model: Any, batch: MicroBatch) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": batch.attention_mask,
        "use_cache": False,
    }
    if batch.owners is None:
        return inputs
    owners = batch.owners
    mask = ((owners[:, None] == owners[None, :]) | (owners == -1)[None, :]).tril()[None, None]
    if model.config._attn_implementation == "eager":
        # Eager attention adds its mask to the scores; sdpa takes booleans.
        lowest = torch.finfo(model.dtype).min
        mask = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(~mask, lowest)
        return inputs | {"attention_mask": mask}
    return inputs | {"attention_mask": mask, "packed_rows": batch.rows}
