"""Whether tuning helped, said honestly: a paired bootstrap over the test examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Result = Literal["improved", "degraded", "inconclusive", "not_needed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a job."""

    outcome: Result
    baseline: str
    """zero_shot or few_shot, whichever is better."""
    metric: str
    difference: float | None
    """Tuned minus baseline in the metric's own unit (negative is better for perplexity); None: nothing was tuned."""
    ci95: tuple[float, float] | None
    text: str
    harmed: list[dict[str, Any]] = field(default_factory=list)
    """Groups of `evaluate.slices` that got worse: column, value, n, difference, interval."""

    def as_json(self) -> dict[str, Any]:
        """The entry ``verdict`` of result.json."""
        entry: dict[str, Any] = {
            "outcome": self.outcome,
            "baseline": self.baseline,
            "metric": self.metric,
            "difference": self.difference,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "text": self.text,
        }
        if self.harmed:
            entry["harmed"] = self.harmed
        return entry
