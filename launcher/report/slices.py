"""How far apart the groups of the test rows lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launcher.report.finished import Finished


@dataclass(frozen=True)
class Gap:
    """The best and the worst group of a column."""

    column: str
    worst: str
    best: str
    gap: float


def by_column(job: Finished) -> dict[str, dict[str, Any]]:
    """By column: the groups, how far apart the best and the worst of them are, and which group lost most."""
    return {column: _column(job, groups) for column, groups in job.result["slices"].items() if groups}


def worst_gap(job: Finished) -> Gap | None:
    """The widest gap of all columns; None where no column has two groups."""
    gaps = [
        Gap(column, each["worst"], each["best"], each["gap"])
        for column, each in by_column(job).items()
        if each["gap"] is not None
    ]
    return max(gaps, key=lambda each: each.gap, default=None)


def _column(job: Finished, groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    sign = 1 if job.result["task"].get("higher_is_better", True) else -1
    after = "tuned" if "tuned" in job.evaluations else job.best_baseline
    values = {group: _value(each.get(after), job.metric) for group, each in groups.items()}
    known = {group: value for group, value in values.items() if value is not None}
    ranked = sorted(known, key=lambda group: sign * known[group])
    before = {group: _value(each.get(job.best_baseline), job.metric) for group, each in groups.items()}
    gains = {group: known[group] - was for group, was in before.items() if was is not None and group in known}
    return {
        "groups": {group: {**each, "gain": gains.get(group)} for group, each in groups.items()},
        "worst": ranked[0] if len(ranked) > 1 else None,
        "best": ranked[-1] if len(ranked) > 1 else None,
        "gap": abs(known[ranked[-1]] - known[ranked[0]]) if len(ranked) > 1 else None,
    }


def _value(entry: dict[str, Any] | None, metric: str) -> float | None:
    return None if entry is None else entry["metrics"].get(metric)
