"""Whether tuning helped, said honestly: a paired bootstrap over the test examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scipy.stats import binomtest

from training_image.evaluate.bootstrap import Interval, differing, paired_difference
from training_image.evaluate.metrics import Metric, metrics_of
from training_image.evaluate.outcomes import Evaluation, finite
from training_image.evaluate.slices import groups
from training_image.spec import Spec

Result = Literal["improved", "degraded", "inconclusive", "not_needed"]

FEWEST_DIFFERING = 6
"""An exact sign test cannot reach 5 % with fewer examples that differ (2 / 2**5 = 0.06), so neither may we."""
FEWEST_IN_GROUP = 10
"""A group with fewer test examples is not accused."""
_ENCODER = "An encoder has no zero-shot or few-shot baseline, so it is judged against the classical one."
CLASSICAL = "The classical baseline (TF-IDF with logistic regression)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a job."""

    outcome: Result
    baseline: str
    """zero_shot or few_shot, whichever is better; classical for an encoder; of `not_needed` the one that was enough."""
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
            "difference": None if self.difference is None else finite(self.difference),
            "ci95": None if self.ci95 is None else [finite(bound) for bound in self.ci95],
            "text": self.text,
        }
        if self.harmed:
            entry["harmed"] = self.harmed
        return entry


def verdict(evaluations: Mapping[str, Evaluation], spec: Spec) -> Verdict:
    """Judge ``tuned`` against the better of ``zero_shot`` and ``few_shot``; an encoder, without them, against
    ``classical``.

    ``improved`` and ``degraded`` need a 95 % interval of the paired difference clear of zero and at least
    `FEWEST_DIFFERING` examples that differ. Raises KeyError where tuned or a baseline is missing.
    """
    metric = _metric(spec)
    baseline, tuned = _better(evaluations, metric), evaluations["tuned"]
    difference, bounds = _paired(metric, tuned, baseline, spec)
    count = differing(metric, tuned.outcomes, baseline.outcomes, tuned.labels)
    outcome = _outcome(metric, bounds, count)
    harmed = _harmed_groups(metric, tuned, baseline, spec) if outcome == "improved" else []
    sentences = [
        _main_sentence(outcome, metric, tuned, baseline, difference, bounds, count),
        _ENCODER if baseline.name == "classical" else _classical_sentence(metric, evaluations, spec),
        *(_harm_sentence(metric, group) for group in harmed),
    ]
    text = " ".join(sentence for sentence in sentences if sentence)
    return Verdict(outcome, baseline.name, metric.name, difference, bounds, text, harmed)


def not_needed(evaluations: Mapping[str, Evaluation], spec: Spec) -> Verdict | None:
    """A verdict where a baseline's lower bound reaches `evaluate.enough`, so that nothing has to be trained; else None.

    Where few answers are wrong the bootstrap's bound lies too high (one wrong of 40: 0.925), above that of no mistake
    at all (0.912), so the binomial bound of as many right answers must reach it too. Metrics outside [0, 1]
    (perplexity) never reach it. Of several good enough baselines the best is named.
    """
    metric, enough = _metric(spec), spec.evaluate.enough
    if enough is None or not metric.unit_interval or not metric.higher_is_better:
        return None
    baselines = [e for e in evaluations.values() if e.name != "tuned" and metric.name in e.ci95]
    good = [evaluation for evaluation in baselines if _lower_bound(evaluation, metric) >= enough]
    if not good:
        return None
    best = max(good, key=lambda evaluation: evaluation.metrics[metric.name])
    text = (
        f"Tuning is not needed: {best.name} reaches {metric.name} {_show(best.metrics[metric.name])} "
        f"(at least {_show(_lower_bound(best, metric))}, {_examples(best)}), and evaluate.enough is {enough:g}. "
        "Nothing was trained; set evaluate.enough to null to tune all the same."
    )
    return Verdict("not_needed", best.name, metric.name, None, None, text)


def _lower_bound(evaluation: Evaluation, metric: Metric) -> float:
    value, low = evaluation.metrics[metric.name], evaluation.ci95[metric.name][0]
    n = evaluation.groups or evaluation.n
    return min(low, float(binomtest(round(value * n), n).proportion_ci(method="exact").low))


def _metric(spec: Spec) -> Metric:
    return metrics_of(spec.task.type, spec.task.metric_name)[spec.task.metric_name]


def _better(evaluations: Mapping[str, Evaluation], metric: Metric) -> Evaluation:
    sign = 1 if metric.higher_is_better else -1
    present = [evaluations[name] for name in ("zero_shot", "few_shot") if name in evaluations]
    present = present or [evaluations["classical"]]
    return max(present, key=lambda evaluation: sign * evaluation.metrics[metric.name])


def _paired(metric: Metric, first: Evaluation, second: Evaluation, spec: Spec) -> tuple[float, Interval]:
    return paired_difference(
        metric,
        first.outcomes,
        second.outcomes,
        first.labels,
        resamples=spec.evaluate.resamples,
        seed=spec.train.seed,
    )


def _outcome(metric: Metric, bounds: Interval, count: int) -> Result:
    low, high = bounds if metric.higher_is_better else (-bounds[1], -bounds[0])
    if count >= FEWEST_DIFFERING and low > 0:
        return "improved"
    if count >= FEWEST_DIFFERING and high < 0:
        return "degraded"
    return "inconclusive"


def _harmed_groups(metric: Metric, tuned: Evaluation, baseline: Evaluation, spec: Spec) -> list[dict[str, Any]]:
    """Groups whose paired interval lies clear on the wrong side, at a level shared among all groups looked at
    (Bonferroni), so that many groups do not raise false alarms."""
    looked_at = [
        (column, value, places)
        for column in spec.evaluate.slices
        for value, places in groups(tuned.outcomes, column)
        if len(places) >= FEWEST_IN_GROUP
    ]
    harmed = []
    for column, value, places in looked_at:
        one, two = ([evaluation.outcomes[place] for place in places] for evaluation in (tuned, baseline))
        difference, bounds = paired_difference(
            metric,
            one,
            two,
            tuned.labels,
            # The tails are thin: there must be resamples enough in them.
            resamples=max(spec.evaluate.resamples, 1000 * len(looked_at)),
            seed=spec.train.seed,
            level=1 - 0.05 / len(looked_at),
        )
        if _outcome(metric, bounds, differing(metric, one, two, tuned.labels)) == "degraded":
            interval = [finite(bound) for bound in bounds]
            group = {"column": column, "value": value, "n": len(places), "metric": metric.name}
            harmed.append(group | {"difference": finite(difference), "interval": interval})
    return harmed


def _main_sentence(
    outcome: Result,
    metric: Metric,
    tuned: Evaluation,
    baseline: Evaluation,
    difference: float,
    bounds: Interval,
    count: int,
) -> str:
    before, after = _show(baseline.metrics[metric.name]), _show(tuned.metrics[metric.name])
    between = "no interval" if math.isnan(bounds[0]) else f"95 % interval {bounds[0]:+.3f} to {bounds[1]:+.3f}"
    numbers = f"difference {difference:+.3f}, {between}, {_examples(tuned)}"
    if outcome == "improved":
        return f"Tuning helped: {metric.name} went from {before} ({baseline.name}) to {after} ({numbers})."
    if outcome == "degraded":
        return (
            f"Tuning made it worse: {metric.name} went from {before} ({baseline.name}) to {after} ({numbers}). "
            "Use the base model, and look at the training labels first."
        )
    unit = "examples" if tuned.groups is None else "groups"
    why = "the interval holds zero" if count >= FEWEST_DIFFERING else f"only {count} {unit} differ"
    return (
        f"No clear difference: {metric.name} is {before} for {baseline.name} and {after} tuned ({numbers}); {why}. "
        f"More test {unit} would narrow the interval."
    )


def _classical_sentence(metric: Metric, evaluations: Mapping[str, Evaluation], spec: Spec) -> str:
    classical, tuned = evaluations.get("classical"), evaluations["tuned"]
    if classical is None or metric.name not in classical.metrics:
        return ""
    difference, bounds = _paired(metric, tuned, classical, spec)
    value = _show(classical.metrics[metric.name])
    ahead = _outcome(metric, bounds, differing(metric, tuned.outcomes, classical.outcomes, tuned.labels))
    if ahead == "improved":
        return f"{CLASSICAL} reaches {value}, {abs(difference):.3f} behind the tuned model."
    if ahead == "degraded":
        return f"{CLASSICAL} is better than the tuned model: {value}, at a small part of the cost."
    # Only what reaches the tuned model's value is called as good: few test examples leave large gaps unclear.
    if difference <= 0 if metric.higher_is_better else difference >= 0:
        return f"{CLASSICAL} is as good as the tuned model: {value}, at a small part of the cost."
    return f"{CLASSICAL} reaches {value}, at a small part of the cost: no clear difference to the tuned model."


def _harm_sentence(metric: Metric, group: dict[str, Any]) -> str:
    low, high = group["interval"]
    return (
        f"But {group['column']} = {group['value']} got worse: {metric.name} {group['difference']:+.3f} "
        f"(interval {low:+.3f} to {high:+.3f}, {group['n']} test examples)."
    )


def _examples(evaluation: Evaluation) -> str:
    count = evaluation.groups
    groups = "" if count is None else " in one group" if count == 1 else f" in {count} groups"
    return f"{evaluation.n} test examples{groups}"


def _show(value: float) -> str:
    return f"{value:.3f}"
