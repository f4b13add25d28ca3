"""Several finished jobs side by side, and the paired interval between any two that answered the same test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from launcher.report.finished import Finished
from launcher.report.slices import Gap, worst_gap
from training_image.errors import InputError


@dataclass(frozen=True)
class Measured:
    """The deciding metric of one evaluation, of all test rows or of a group of them."""

    value: float | None
    ci95: tuple[float | None, float | None]


@dataclass(frozen=True)
class Entry:
    """One job, by its tuned model, or by its better baseline where nothing was tuned."""

    job: str
    answered_by: str
    """tuned, zero_shot or few_shot."""
    value: float | None
    ci95: tuple[float | None, float | None]
    n: int
    model: str
    method: str
    outcome: str
    """The job's own verdict."""
    seconds: float
    """All of its time."""
    usd: float | None
    """What it cost; None where that is not known."""
    estimate_usd: float | None
    """What was expected at its submit."""
    evaluations: dict[str, Measured]
    """Every evaluation of the job, by name."""
    guards: list[dict[str, Any]] | None
    """What went wrong in its training; None where nothing was trained."""
    slices: dict[str, dict[str, Measured]]
    """By column and group, of the evaluation that answers."""
    worst_gap: Gap | None


@dataclass(frozen=True)
class Pair:
    """First minus second in the metric's unit."""

    first: str
    second: str
    difference: float | None
    ci95: tuple[float, float] | None
    better: str | None
    """The job that is better for sure: the interval is clear of zero and enough rows differ."""
    why_not: str = ""
    """Why there is no interval."""


@dataclass(frozen=True)
class Comparison:
    """Jobs and pairs of them."""

    metric: str
    jobs: list[Entry]
    pairs: list[Pair]
    differences: dict[str, list[Any]]
    """What the jobs do not have in common: the settings and counts by name, a value for each job."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def compare(jobs: Sequence[Finished]) -> Comparison:
    """Put jobs side by side. Raises InputError where they were not judged by one metric, or the extra is missing."""
    asked = {(job.result["task"]["type"], job.metric) for job in jobs}
    if len(asked) > 1:
        told = ", ".join(f"{job.result['job']}: {job.metric} of {job.result['task']['type']}" for job in jobs)
        raise InputError(f"the jobs were not judged alike: {told}", hint="run them with one task and one task.metric")
    try:
        pairs = [_pair(first, second) for first, second in combinations(jobs, 2)]
    except ModuleNotFoundError as error:
        raise InputError(f"comparing needs {error.name}", hint="pip install 'ftlaunch[local]'") from error
    return Comparison(jobs[0].metric, [_entry(job) for job in jobs], pairs, _differences(jobs))


def _differences(jobs: Sequence[Finished]) -> dict[str, list[Any]]:
    told = [_settings(job) for job in jobs]
    names = dict.fromkeys(name for each in told for name in each)
    values = {name: [each.get(name) for each in told] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _settings(job: Finished) -> dict[str, Any]:
    result = job.result
    return {
        "base model": result["model"]["id"],
        "method": result["method"],
        "seed": result["seed"],
        "training rows": result["data"]["train"]["used"],
        **result["settings"],
    }


def _entry(job: Finished) -> Entry:
    name, result = _answered_by(job), job.result
    evaluations = {each: _measured(found, job.metric) for each, found in job.evaluations.items()}
    return Entry(
        job=result["job"],
        answered_by=name,
        value=evaluations[name].value,
        ci95=evaluations[name].ci95,
        n=job.evaluations[name]["n"],
        model=result["model"]["id"],
        method=result["method"],
        outcome=result["verdict"]["outcome"],
        seconds=sum(result["timings"].values()),
        usd=job.record.actual_usd if job.record else None,
        estimate_usd=job.record.estimate_usd if job.record else None,
        evaluations=evaluations,
        guards=result["guards"] if result.get("training") else None,
        slices={
            column: {group: _measured(each[name], job.metric) for group, each in groups.items() if each.get(name)}
            for column, groups in result["slices"].items()
            if groups
        },
        worst_gap=worst_gap(job),
    )


def _measured(evaluation: dict[str, Any], metric: str) -> Measured:
    low, high = evaluation["ci95"].get(metric, (None, None))
    return Measured(evaluation["metrics"].get(metric), (low, high))


def _answered_by(job: Finished) -> str:
    return "tuned" if "tuned" in job.predictions else job.best_baseline


def _pair(first: Finished, second: Finished) -> Pair:
    """The paired bootstrap of the verdict, between the answers of two jobs."""
    from training_image.evaluate.bootstrap import differing, paired_difference
    from training_image.evaluate.metrics import metrics_of
    from training_image.evaluate.verdict import FEWEST_DIFFERING

    names = first.result["job"], second.result["job"]
    one, two = _outcomes(first), _outcomes(second)
    if [(each.id, each.references) for each in one] != [(each.id, each.references) for each in two]:
        return Pair(*names, None, None, None, "they did not answer the same test rows")
    metric = metrics_of(first.result["task"]["type"], first.metric)[first.metric]
    labels = first.evaluations[_answered_by(first)].get("labels", [])
    difference, (low, high) = paired_difference(metric, one, two, labels)
    if math.isnan(low):
        return Pair(*names, difference, None, None, "one test row, or one group of them, has no interval")
    sign = 1 if metric.higher_is_better else -1
    enough = differing(metric, one, two, labels) >= FEWEST_DIFFERING
    better = names[0] if min(sign * low, sign * high) > 0 else names[1] if max(sign * low, sign * high) < 0 else None
    return Pair(*names, difference, (low, high), better if enough else None)


def _outcomes(job: Finished) -> list[Any]:
    from training_image.evaluate.outcomes import Outcome

    return [
        Outcome(
            id=str(line["id"]),
            references=tuple(line.get("references") or [line["reference"]]),
            prediction=line["prediction"],
            nll=line.get("nll", float("nan")),
            tokens=line.get("tokens", 0),
            group=line.get("group"),
        )
        for line in job.predictions[_answered_by(job)]
    ]
