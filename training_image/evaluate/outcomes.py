"""What an evaluation gives: one `Outcome` a test example, and the `Evaluation` over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training_image.data.examples import Example


@dataclass(frozen=True, slots=True)
class Outcome:
    """One example, answered. What the metrics, the bootstrap and the slices look at."""

    id: str
    references: tuple[str, ...]
    """All answers that count as right; the first is the reference."""
    prediction: str
    nll: float = math.nan
    """Negative log-likelihood of the reference answer with its end-of-turn, in nats, before any calibration; nan where
    it was not computed (the classical baseline)."""
    tokens: int = 0
    """Tokens that `nll` sums over."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The row as it was, for slices."""
    group: int | None = None
    """Number of the row's value of ``data.group`` among the test rows; None: the row is alone."""

    @property
    def reference(self) -> str:
        """The answer that stands in the row."""
        return self.references[0]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One way of answering the frozen test split, measured."""

    name: str
    """zero_shot, few_shot, tuned or classical."""
    outcomes: tuple[Outcome, ...]
    """In the order of the test split, the same in every evaluation."""
    metrics: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    """Percentile bootstrap over the test examples, or their groups, 95 %."""
    seconds: float
    predictions: list[dict[str, Any]]
    """Lines of ``predictions/NAME.jsonl``."""
    labels: list[str] = field(default_factory=list)
    """Classification: all labels, in the order of `confusion`."""
    confusion: list[list[int]] | None = None
    """Classification: ``confusion[i][j]`` examples of label i were called j."""
    shots: list[str] | None = None
    """Ids of the few-shot examples in the prompt's order; None where there are none by design."""
    calibration: dict[str, Any] | None = None
    """Classification: temperature, bias by label, validation rows."""
    notes: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of test examples."""
        return len(self.outcomes)

    @property
    def groups(self) -> int | None:
        """Number of groups that the intervals draw whole, a row without one counted as one; None without groups."""
        grouped = any(outcome.group is not None for outcome in self.outcomes)
        return len(set(units(self.outcomes))) if grouped else None

    @property
    def k(self) -> int | None:
        """Number of few-shot examples; None where there are none by design."""
        return None if self.shots is None else len(self.shots)

    def as_json(self) -> dict[str, Any]:
        """The entry of ``evaluations`` in result.json."""
        entry: dict[str, Any] = {"n": self.n}
        if self.groups is not None:
            entry["groups"] = self.groups
        if self.shots is not None:
            entry |= {"k": self.k, "shots": self.shots}
        entry |= {
            "metrics": {name: finite(value) for name, value in self.metrics.items()},
            "ci95": {name: [finite(low), finite(high)] for name, (low, high) in self.ci95.items()},
            "seconds": round(self.seconds, 3),
        }
        if self.confusion is not None:
            entry |= {"confusion": self.confusion, "labels": self.labels}
        if self.calibration is not None:
            entry["calibration"] = self.calibration
        if self.notes:
            entry["notes"] = self.notes
        return entry


def units(outcomes: Sequence[Outcome]) -> list[int]:
    """For each outcome the number of what a bootstrap draws together: all rows of its group, or it alone."""
    numbers: dict[str, int] = {}
    names = (f"row {row}" if each.group is None else f"group {each.group}" for row, each in enumerate(outcomes))
    return [numbers.setdefault(name, len(numbers)) for name in names]


def group_numbers(rows: Sequence[Example], column: str | None) -> dict[str, int]:
    """`Outcome.group` by row id: numbers, as a value (a patient's) has no place in results."""
    numbers: dict[str, int] = {}
    values = {row.id: row.fields.get(column) for row in rows} if column is not None else {}
    return {own: numbers.setdefault(str(value), len(numbers)) for own, value in values.items() if value is not None}


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it (nan, infinity)."""
    return float(value) if math.isfinite(value) else None
