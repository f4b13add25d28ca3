"""Encoder models (the BERT family) as the base of a classification: the loss and the scores of a head over LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from training_image.batches import MicroBatch, micro_batches
from training_image.data.examples import IGNORED, Sample
from training_image.model import evaluating

_EVALUATED_TOKENS = 4096
"""Tokens of a batch that is only scored."""


def label_loss(model: Any, batch: MicroBatch) -> Tensor:
    """Sum of the rows' losses in nats, for the padded layout."""
    rows = batch.sources // batch.input_ids.shape[1]
    return torch.nn.functional.cross_entropy(_logits(model, batch)[rows], batch.targets, reduction="sum")


def label_scores(model: Any, prompts: Sequence[list[int]], pad: int) -> list[list[float]]:
    """Log-probability of each label, ``[prompts, labels]``, rows of like length together."""
    rows = [Sample(str(place), ids, [IGNORED] * (len(ids) - 1) + [0]) for place, ids in enumerate(prompts)]
    # `micro_batches` lays the longest rows first, and fills one batch after the other in that order.
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].input_ids))
    found: list[list[float]] = [[] for _ in rows]
    with evaluating(model):
        for start in range(0, len(order), _rows_of_batch(prompts)):
            some = order[start : start + _rows_of_batch(prompts)]
            width = max(len(prompts[place]) for place in some) * len(some)
            batches = micro_batches([rows[place] for place in some], width, "padded", pad)
            scores = [_logits(model, batch.to(model.device)).log_softmax(-1).tolist() for batch in batches]
            for place, values in zip(some, chain.from_iterable(scores), strict=True):
                found[place] = values
    return found


def _rows_of_batch(prompts: Sequence[list[int]]) -> int:
    return max(1, _EVALUATED_TOKENS // max(map(len, prompts)))


def _logits(model: Any, batch: MicroBatch) -> Tensor:
    """``[rows, labels]`` in fp32; a model of this family counts its positions by itself."""
    logits: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits.float()
