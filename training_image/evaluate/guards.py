"""What the curves say about the training: signs of a run that went wrong, with evidence and a hint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

Guard = dict[str, str]
"""code, evidence, hint: an entry of ``guards`` in result.json."""

FEWEST_STEPS = 10
"""Steps below which a curve says nothing about the learning rate."""


def guards(history: Sequence[Mapping[str, Any]]) -> list[Guard]:
    """Look at the lines of metrics.jsonl (``step``, ``train/loss``, ``train/grad_norm``, ``validation/loss``, ...).

    Codes: learning_rate_too_high, dead_adapter, learning_rate_too_low, overfitting. At most one of the first three, as
    each explains the ones after it. A loss that is no number is not among them: it ends the job at its step, by an
    error and an exit code of its own (`training_image.errors.Diverged`).
    """
    train = _series(history, "train/loss")
    # A norm that is no number is of a step that the fp16 scaler skipped; without a scaler it ends the training.
    norms = [(step, norm) for step, norm in _series(history, "train/grad_norm") if math.isfinite(norm)]
    found: list[Guard] = []
    for look in (_too_high, _dead, _too_low):
        guard = look(train, norms)
        if guard is not None:
            found.append(guard)
            break
    overfitting = _overfitting(train, _series(history, "validation/loss"))
    return found if overfitting is None else [*found, overfitting]


Series = list[tuple[int, float]]


def _series(history: Sequence[Mapping[str, Any]], name: str) -> Series:
    return [(int(line["step"]), float(line[name])) for line in history if line.get(name) is not None]


def _ends(series: Series) -> tuple[float, float]:
    """Mean over the first and over the last fifth."""
    part = max(1, len(series) // 5)
    values = [value for _, value in series]
    return fmean(values[:part]), fmean(values[-part:])


def _too_high(train: Series, norms: Series) -> Guard | None:
    if len(train) < FEWEST_STEPS:
        return None
    first, last = _ends(train)
    # A rise by half of the start's loss is no noise: the start is the untouched base model.
    if last > 1.5 * first and last > first + 0.5:
        return _guard(
            "learning_rate_too_high",
            f"the training loss rose from {first:.3f} to {last:.3f}",
            "Lower train.learning_rate to a third, or raise train.warmup.",
        )
    return None


def _dead(train: Series, norms: Series) -> Guard | None:
    # At step 1 half of the adapter (A) has no gradient by design; the other half (B) must have one.
    if norms and max(value for _, value in norms) < 1e-7:
        return _guard(
            "dead_adapter",
            f"the gradient norm never passed {max(value for _, value in norms):.1e}",
            "The adapter learned nothing: no weight was reached by a gradient. Check the model's module names.",
        )
    return None


def _too_low(train: Series, norms: Series) -> Guard | None:
    if len(train) < FEWEST_STEPS:
        return None
    first, last = _ends(train)
    typical = median(value for _, value in train)
    # A loss that is small from the start cannot fall much; one that rose does not ask for a higher rate.
    if first > 0.3 and 0.97 * first < last < 1.1 * first and typical > 0.9 * first:
        return _guard(
            "learning_rate_too_low",
            f"the training loss hardly moved, from {first:.3f} to {last:.3f} in {train[-1][0]} steps",
            "Raise train.learning_rate threefold or train longer; if that does not help, look at the labels.",
        )
    return None


def _overfitting(train: Series, validation: Series) -> Guard | None:
    finite = [(step, value) for step, value in validation if math.isfinite(value)]
    if len(finite) < 2:
        return None
    best_step, best = min(finite, key=lambda point: point[1])
    step, last = finite[-1]
    before = [value for at, value in train if at <= best_step]
    after = [value for at, value in train if at > best_step]
    fell = bool(before and after) and fmean(after) < before[-1]
    if last > 1.1 * best and last > best + 0.05 and fell:
        return _guard(
            "overfitting",
            f"validation loss rose from {best:.3f} at step {best_step} to {last:.3f} at step {step} "
            f"while training loss fell to {fmean(after):.3f}",
            "Take fewer train.epochs, more rows, or a lower train.rank; the saved adapter is the best step's.",
        )
    return None


def _guard(code: str, evidence: str, hint: str) -> Guard:
    return {"code": code, "evidence": evidence, "hint": hint}
