"""The page that shows finished jobs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.report import charts
from launcher.report.compare import Comparison, Pair
from launcher.report.finished import NAMES, Finished
from launcher.report.page import cost, needing_extra, render, series


@needing_extra()
def page(made: Comparison, jobs: Sequence[Finished]) -> str:
    """The whole page as HTML. Raises InputError where the extra ``report`` is missing."""
    sure = [f"{pair.better} is better than {_other(pair)}" for pair in made.pairs if pair.better]
    columns = dict.fromkeys(column for each in made.jobs for column in each.slices)
    return render(
        "compare.html.j2",
        **made.document(),
        names=NAMES,
        summary="; ".join(sure) + "." if sure else "No clear difference between any two of them.",
        pictures=_pictures(made, jobs),
        cost=cost,
        evaluations=[name for name in NAMES if any(name in each.evaluations for each in made.jobs)],
        slices={
            column: list(dict.fromkeys(group for each in made.jobs for group in each.slices.get(column, {})))
            for column in columns
        },
    )


def _pictures(made: Comparison, jobs: Sequence[Finished]) -> dict[str, str]:
    losses = {
        job.result["job"]: [series(job.history, f"{split}/loss") for split in ("validation", "train")] for job in jobs
    }
    metrics = {job.result["job"]: [series(job.history, f"validation/{made.metric}")] for job in jobs}
    return {
        "intervals": charts.intervals({each.job: (each.value, each.ci95) for each in made.jobs}, made.metric),
        "loss": charts.overlaid(losses, "loss"),
        "metric": charts.overlaid(metrics, made.metric),
    }


def _other(pair: Pair) -> str:
    return pair.second if pair.better == pair.first else pair.first
