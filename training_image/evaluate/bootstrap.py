"""Intervals: percentile bootstrap over test examples (scipy), of one evaluation or of the difference of two.

Rows of one group (`Outcome.group`) depend on each other, so whole groups are drawn: the cluster bootstrap (Davison and
Hinkley 1997, section 3.8). As every metric is a function of sums, a group is drawn by its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from training_image.evaluate.metrics import Floats, Metric, all_labels
from training_image.evaluate.outcomes import Outcome, units

Interval = tuple[float, float]

_CELLS = 4_000_000
"""Most numbers held by one batch of resamples (32 MB)."""


def interval(
    metric: Metric,
    outcomes: Sequence[Outcome],
    labels: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The metric's interval.

    Where a metric in [0, 1] is exactly 0 or 1 every resample is alike and the bootstrap knows no doubt; the exact
    binomial bound (Clopper and Pearson 1934) stands in then: twenty right of twenty say 0.83 to 1, not 1 to 1.
    """
    statistics = _sums_of_units(metric.statistics(outcomes, labels), outcomes)
    n = len(statistics)
    value = float(metric.value(statistics.sum(axis=0)))
    if metric.unit_interval and value in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / max(n, 1))
        return (bound, 1.0) if value else (0.0, 1 - bound)
    if n < 2:
        return (float("nan"), float("nan"))
    return _percentile(lambda counts: metric.value(counts @ statistics), n, resamples, seed, level)


def paired_difference(
    metric: Metric,
    first: Sequence[Outcome],
    second: Sequence[Outcome],
    labels: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, Interval]:
    """First minus second in the metric's unit, and its interval, the same examples drawn for both.

    Raises ValueError if the two do not answer the same examples in the same order.
    """
    if [outcome.id for outcome in first] != [outcome.id for outcome in second]:
        raise ValueError("a paired bootstrap needs the same examples in the same order")
    # Both need the same columns: a label that only one of them predicts must count in both.
    every = all_labels([*first, *second], labels)
    one, two = (_sums_of_units(metric.statistics(each, every), first) for each in (first, second))

    def difference(counts: Floats) -> Floats:
        return metric.value(counts @ one) - metric.value(counts @ two)

    value = float(difference(np.ones(len(one))))
    if len(one) < 2:
        return value, (float("nan"), float("nan"))
    return value, _percentile(difference, len(one), resamples, seed, level)


def differing(metric: Metric, first: Sequence[Outcome], second: Sequence[Outcome], labels: Sequence[str]) -> int:
    """Number of examples that the metric sees differently in the two evaluations; of groups, where rows have one."""
    every = all_labels([*first, *second], labels)
    one, two = metric.statistics(first, every), metric.statistics(second, every)
    return len(set(np.array(units(first))[(~np.isclose(one, two)).any(axis=-1)]))


def _sums_of_units(statistics: Floats, outcomes: Sequence[Outcome]) -> Floats:
    """``[examples, d]`` to ``[groups, d]``: what is drawn together, added up."""
    places = units(outcomes)
    sums = np.zeros((len(set(places)), *statistics.shape[1:]))
    np.add.at(sums, places, statistics)
    return sums


def _percentile(statistic: Callable[[Floats], Floats], n: int, resamples: int, seed: int, level: float) -> Interval:
    """Bounds of the statistic of ``counts [resamples, n]`` (how often each example, or group, was drawn)."""

    def of_indices(indices: NDArray[np.int64], axis: int) -> Floats:
        drawn = indices.reshape(-1, n)
        shifted = drawn + n * np.arange(len(drawn))[:, None]
        counts = np.bincount(shifted.ravel(), minlength=drawn.size).reshape(drawn.shape)
        return np.asarray(statistic(counts.astype(np.float64))).reshape(indices.shape[:-1])

    result = bootstrap(
        (np.arange(n),),
        of_indices,
        n_resamples=resamples,
        batch=max(1, _CELLS // n),
        vectorized=True,
        axis=-1,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
