"""The rows of encoder models (the BERT family): the text alone, and the number of its label.

They have no zero-shot and no few-shot, for an untrained head answers at random; all else (rows, splits, calibration,
metrics, verdict) is what every job has. A row's `Sample` carries its label at its last token, so that batches and
counts are those of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training_image.data.examples import IGNORED, Example, Sample
from training_image.spec import Spec

_POSITIONS_BEFORE = 2
"""RoBERTa and its kin keep this many of their positions for padding."""


def is_encoder(config: Any) -> bool:
    """Whether a model of this config reads its whole row at once, and so cannot write an answer."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    # A family that can only be an encoder (DistilBERT, ModernBERT) does not say that it is no decoder.
    writes = getattr(config, "is_decoder", False) or config.is_encoder_decoder
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not writes


class EncoderRenderer:
    """Makes token ids of examples for an encoder; the counterpart of `training_image.data.Renderer`."""

    plain_template: str | None = None
    end_ids: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, spec: Spec, labels: Sequence[str], positions: int | None) -> None:
        """``labels``: all of them, in order. ``positions``: how many tokens the model has positions for."""
        self.tokenizer = tokenizer
        self.labels = list(labels)
        most = None if positions is None else positions - _POSITIONS_BEFORE
        self.max_length = min(spec.data.max_length, most or spec.data.max_length)

    def answer(self, text: str) -> list[int]:
        """The label's number; `IGNORED` for one that no training row has."""
        return [self.labels.index(text) if text in self.labels else IGNORED]

    def prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        """Ids of the text, its end cut off where it is too long. Raises ValueError for shots, which it cannot have."""
        if shots:
            raise ValueError("an encoder takes no examples in its prompt")
        return self._ids(example)[0]

    def sample(self, example: Example) -> Sample:
        """The row as it is trained on, at most ``max_length`` tokens."""
        ids, cut = self._ids(example)
        return Sample(example.id, ids, [IGNORED] * (len(ids) - 1) + self.answer(example.answer), cut)

    def _ids(self, example: Example) -> tuple[list[int], int]:
        whole: list[int] = self.tokenizer(example.text, verbose=False)["input_ids"]
        if len(whole) <= self.max_length:
            return whole, 0
        ids: list[int] = self.tokenizer(example.text, truncation=True, max_length=self.max_length)["input_ids"]
        return ids, len(whole) - len(ids)
