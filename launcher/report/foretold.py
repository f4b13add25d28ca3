"""What was expected of a job at its submit beside what came: dollars, time at the place, time of the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launcher.report.finished import Finished

Say = Callable[[float | None], str]


@dataclass(frozen=True)
class Foretold:
    """One quantity, in words."""

    name: str
    expected: str
    """With its range."""
    actual: str
    verdict: str
    """``inside``, ``above`` or ``below`` the range; empty where either is not known."""


def foretold(job: Finished, billed: bool, usd: Say, seconds: Say) -> list[Foretold]:
    """The rows of the page; empty for a job whose record or estimate is not here."""
    record = job.record
    if record is None or record.estimate is None:
        return []
    found = record.estimate
    training = job.result.get("training") or {}
    spent = float(sum(job.result["timings"].values()))
    if record.billable_seconds is not None:
        spent = record.billable_seconds / int(found.get("machines") or 1)
    rows = [
        _row("billed time" if billed else "the whole job", _seconds(found.get("billed_hours")), spent, seconds),
        _row("training", _seconds((found.get("hours") or {}).get("train")), training.get("seconds"), seconds),
    ]
    return [_row("cost", found.get("usd"), record.actual_usd, usd), *rows] if billed else rows


def _row(name: str, expected: dict[str, float] | None, actual: float | None, say: Say) -> Foretold:
    if not expected:
        return Foretold(name, "not known", say(actual), "")
    told = f"{say(expected['expected'])} ({say(expected['low'])} to {say(expected['high'])})"
    if actual is None:
        return Foretold(name, told, say(actual), "")
    verdict = "below" if actual < expected["low"] else "above" if actual > expected["high"] else "inside"
    return Foretold(name, told, say(actual), verdict)


def _seconds(hours: dict[str, float] | None) -> dict[str, float] | None:
    return hours and {name: 3600 * value for name, value in hours.items()}
