"""The learning curve: the metric over the number of training rows, and what it says about more of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from launcher.report.compare import Pair, compare
from launcher.report.finished import Finished

LITTLE = 0.02
"""A gain that is below this for sure is little, in a metric of [0, 1]."""


@dataclass(frozen=True)
class Point:
    """One part of the training rows."""

    percent: int
    rows: int
    job: str
    value: float | None
    ci95: tuple[float | None, float | None]


@dataclass(frozen=True)
class Curve:
    """The points, the last step and what it means."""

    metric: str
    points: list[Point]
    last: Pair
    """The largest part minus the one before."""
    more_helps: bool | None
    """None: cannot be told."""
    text: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def judge(found: Sequence[tuple[int, int, Finished]]) -> Curve:
    """Percent, rows and job of each point, the smallest first. Raises InputError as `compare` does."""
    made = compare([job for _, _, job in found])
    points = [
        Point(percent, rows, entry.job, entry.value, entry.ci95)
        for (percent, rows, _), entry in zip(found, made.jobs, strict=True)
    ]
    before, whole = found[-2][2], found[-1][2]
    last = compare([whole, before]).pairs[0]
    higher = bool(whole.result["task"].get("higher_is_better", True))
    more_helps, text = _told(last, points, made.metric, higher)
    return Curve(made.metric, points, last, more_helps, text)


def _told(last: Pair, points: Sequence[Point], metric: str, higher: bool) -> tuple[bool | None, str]:
    step = f"from {points[-2].rows} to {points[-1].rows} training rows"
    if last.ci95 is None or last.difference is None:
        return None, f"Whether more data would help cannot be told: {last.why_not}."
    low, high = last.ci95
    numbers = f"{metric} changed by {last.difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
    gain = (low, high) if higher else (-high, -low)
    if last.better == last.first:
        return True, f"More data would probably help: {step}, {numbers}."
    if last.better == last.second:
        return False, f"More data of this kind would not help: {step} it got worse; {numbers}. Look at the added rows."
    if higher and gain[1] < LITTLE:
        return False, f"More data of this kind would help little: {step}, {numbers}."
    return None, f"Whether more data would help is not clear: {step}, {numbers}. More test rows would tell."
