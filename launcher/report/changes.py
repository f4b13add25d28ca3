"""Which test examples the tuning changed most, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launcher.report.finished import Finished, Line

MOST = 10
"""Examples shown in each direction."""


@dataclass(frozen=True)
class Change:
    """One test example, before and after."""

    id: str
    input: str
    reference: str
    before: str
    after: str
    gain: float
    """What the score of the reference gained; positive is better."""


@dataclass(frozen=True)
class Changes:
    """The examples that changed most."""

    score: str
    """What was compared, in words."""
    better: list[Change]
    worse: list[Change]


def most_changed(job: Finished, most: int = MOST) -> Changes | None:
    """The ``most`` examples that gained and the ``most`` that lost most from the baseline to the tuned model.

    By the probability of the right label, else by the deciding metric of each example, else by the likelihood of the
    reference. None where nothing was tuned.
    """
    before, after = job.predictions.get(job.best_baseline), job.predictions.get("tuned")
    if not before or not after:
        return None
    score, words = _score(after[0], job.metric)
    pairs = [(one, two, score(two) - score(one)) for one, two in zip(before, after, strict=True)]
    changes = [
        Change(
            str(two["id"]),
            str(two.get("input", "")),
            str(two["reference"]),
            str(one["prediction"]),
            str(two["prediction"]),
            gain,
        )
        for one, two, gain in pairs
    ]
    ranked = sorted(changes, key=lambda change: -change.gain)
    better = [change for change in ranked[:most] if change.gain > 0]
    worse = [change for change in reversed(ranked[-most:]) if change.gain < 0]
    return Changes(words, better, worse)


def _score(line: Line, metric: str) -> tuple[Callable[[Line], float], str]:
    if "probabilities" in line:
        return lambda row: float(row["probabilities"].get(row["reference"], 0.0)), "probability of the right label"
    if metric in line:
        return lambda row: float(row[metric]), metric
    return lambda row: -float(row["nll"]) / max(1, row["tokens"]), "mean log-probability of the reference's tokens"
