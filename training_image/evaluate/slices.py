"""The metric by group: how each evaluation does for every value of a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training_image.evaluate.bootstrap import interval
from training_image.evaluate.metrics import evaluate, metrics_of
from training_image.evaluate.outcomes import Evaluation, Outcome, finite
from training_image.spec import Spec

MOST_GROUPS = 50
"""The most frequent values of a column stand alone, the rest together as `OTHER`."""
OTHER = "(other)"
MISSING = "(none)"


def groups(outcomes: Sequence[Outcome], column: str) -> Iterator[tuple[str, list[int]]]:
    """Value and positions of each group, the largest first."""
    values = [MISSING if (value := outcome.fields.get(column)) is None else str(value) for outcome in outcomes]
    sizes = Counter(values)
    if len(sizes) > MOST_GROUPS:
        kept = {value for value, _ in sizes.most_common(MOST_GROUPS - 1)}
        values = [value if value in kept else OTHER for value in values]
    for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])):
        yield value, [place for place, own in enumerate(values) if own == value]


def slices(evaluations: Mapping[str, Evaluation], spec: Spec) -> dict[str, dict[str, dict[str, Any]]]:
    """The entry ``slices`` of result.json: column, value, then ``n`` and each evaluation's deciding metric.

    ``{"source": {"web": {"n": 40, "tuned": {"metrics": {"macro_f1": 0.9}, "ci95": {"macro_f1": [0.8, 1.0]}}}}}``
    """
    metric = metrics_of(spec.task.type, spec.task.metric_name)[spec.task.metric_name]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    first = next(iter(evaluations.values()))
    for column in spec.evaluate.slices:
        found[column] = {}
        for value, places in groups(first.outcomes, column):
            entry: dict[str, Any] = {"n": len(places)}
            for name, evaluation in evaluations.items():
                # A metric that an evaluation has not (perplexity of the classical baseline) has no slices either.
                if metric.name not in evaluation.metrics:
                    continue
                some = [evaluation.outcomes[place] for place in places]
                low, high = interval(
                    metric, some, evaluation.labels, resamples=spec.evaluate.resamples, seed=spec.train.seed
                )
                value_here = evaluate(metric, some, evaluation.labels)
                entry[name] = {
                    "metrics": {metric.name: finite(value_here)},
                    "ci95": {metric.name: [finite(low), finite(high)]},
                }
            found[column][value] = entry
    return found
