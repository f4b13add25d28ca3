"""What a row becomes: an `Example` that any part can use, a `Sample` that the trainer can take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

IGNORED = -100
"""The label of a token that is not supervised (torch's cross-entropy ignores it)."""


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row, read and checked, before any tokenizer saw it."""

    id: str
    """The row's own id, else ``SPLIT-ROW``."""
    row: int
    """Row in its file, from 1."""
    messages: tuple[Message, ...]
    """The prompt's turns; the last one is not the assistant's. Empty for plain completion without a prompt."""
    answer: str
    """What the model has to give; the supervised text."""
    references: tuple[str, ...]
    """All answers that count as right; ``(answer,)`` but for QA."""
    text: str
    """The input alone, without instruction: what the classical baseline, duplicates and leaks look at."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The row as it was, for slices and groups."""
    cuttable: str = ""
    """The part of the last user turn that may be cut to fit (the text, the context); empty: any user turn."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One tokenised row. ``labels[i]`` is ``input_ids[i]`` where supervised, else `IGNORED` (not shifted)."""

    id: str
    input_ids: list[int]
    labels: list[int]
    cut: int = 0
    """Prompt tokens that were cut away."""

    @property
    def supervised(self) -> int:
        """Number of supervised tokens."""
        return sum(label != IGNORED for label in self.labels)
