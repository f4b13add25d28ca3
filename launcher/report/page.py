"""Fills the page's template. All text of data or model is escaped, cut and kept apart from the text around it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends import registry
from launcher.report import charts, slices
from launcher.report.changes import most_changed
from launcher.report.finished import NAMES, Finished
from launcher.report.foretold import foretold
from launcher.store import Record
from training_image.errors import InputError

HEADLINES = {
    "improved": "Tuning helped",
    "degraded": "Tuning made it worse",
    "inconclusive": "No clear difference",
    "not_needed": "Tuning is not needed",
}
LONGEST = 600
"""Letters of a text that the page shows."""


@contextmanager
def needing_extra() -> Iterator[None]:
    """Raise InputError where the extra ``report`` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"the page needs {error.name}", hint="pip install 'ftlaunch[report]'") from error


@needing_extra()
def page(job: Finished, findings: list[dict[str, Any]], unchecked: str) -> str:
    """The whole page as HTML. ``findings`` and why there are none: as `launcher.report.findings.findings` gives them.

    Raises InputError where the extra ``report`` is missing.
    """
    return render("job.html.j2", **context(job), findings=findings, unchecked=unchecked)


def render(template: str, **values: Any) -> str:
    """A page by a template of ours, autoescaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("launcher.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": clean, "number": number, "seconds": seconds, "words": words, "usd": usd}
    environment.filters |= {"setting": setting}
    return environment.get_template(template).render(**values)


def write(text: str, path: Path) -> None:
    """Write a page; half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="replace")


def clean(text: object) -> str:
    """A text for people: without control characters, at most `LONGEST` letters."""
    kept = "".join(
        letter if letter in "\n\t" or letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for letter in str(text)[: LONGEST + 1]
    )
    return kept if len(kept) <= LONGEST else kept[:LONGEST] + "\N{HORIZONTAL ELLIPSIS}"


def number(value: float | None, sign: bool = False) -> str:
    """A metric's value."""
    if value is None:
        return "-"
    return f"{value:{'+' if sign else ''}.3f}" if abs(value) < 1000 else f"{value:{'+' if sign else ''}.4g}"


def seconds(value: float | None) -> str:
    """A duration in words."""
    if value is None:
        return "-"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def words(name: object) -> str:
    """A name of ours as words."""
    return str(name).replace("_", " ")


def setting(value: object) -> str:
    """A value of the job file; a number with as many digits as tell it apart."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def usd(value: float | None) -> str:
    """An amount; what is not known is never zero."""
    return "not known" if value is None else f"${value:.2f}"


def cost(actual: float | None, expected: float | None) -> str:
    """What a job cost beside what was expected of it."""
    return usd(actual) if expected is None else f"{usd(actual)}, expected {usd(expected)}"


def context(job: Finished) -> dict[str, Any]:
    """What the template of a job takes, without the findings."""
    result = job.result
    tuned = "tuned" in job.evaluations
    outcome = result["verdict"]["outcome"]
    billed = _billed(job)
    measured_only = outcome == "inconclusive" and not tuned
    return {
        "job": job,
        "result": result,
        "verdict": result["verdict"],
        "headline": "Only the baselines were measured" if measured_only else HEADLINES[outcome],
        "names": NAMES,
        "metrics": list(next(iter(job.evaluations.values()))["metrics"]),
        "compared": _compared(job),
        "pictures": _pictures(job),
        "confusions": _confusions(job),
        "changes": most_changed(job),
        "slices": slices.by_column(job),
        "record": job.record,
        "billed": billed,
        "foretold": foretold(job, billed, usd, seconds),
        "ended": day(job.record),
        "forgotten": _forgotten(result.get("forgetting")),
        "environment": job.manifest.get("environment", {}),
        "inputs": job.record.plan.inputs if job.record and job.record.plan else {},
    }


def _forgotten(losses: dict[str, Any] | None) -> str:
    """What the loss on a general text says; half a nat a token is much: the right word is 1.6 times less likely."""
    lost = 0.0 if losses is None or losses["after"] is None else losses["after"] - losses["before"]
    if lost > 0.5:
        return "much was forgotten"
    return "a little was forgotten" if lost > 0.1 else "nothing to speak of was forgotten"


def _compared(job: Finished) -> dict[str, str]:
    """The evaluations' names with the number of examples in the prompt."""
    shots = {name: each.get("k") for name, each in job.evaluations.items()}
    return {name: NAMES[name] + (f" ({k} examples)" if k else "") for name, k in shots.items()}


def _pictures(job: Finished) -> dict[str, str]:
    values = {
        NAMES[name]: (each["metrics"].get(job.metric), tuple(each["ci95"].get(job.metric, (None, None))))
        for name, each in job.evaluations.items()
    }
    training = job.result.get("training") or {}
    best, metric = training.get("best_step"), f"validation/{job.metric}"
    losses = {name: series(job.history, name) for name in ("train/loss", "validation/loss")}
    return {
        "intervals": charts.intervals(values, job.metric),
        "loss": charts.curves(losses, "loss", best),
        "metric": charts.curves({metric: series(job.history, metric)}, job.metric, best),
    }


def series(history: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """What was logged under a name, by optimizer step."""
    return [(line["step"], line[name]) for line in history if line.get(name) is not None]


def _confusions(job: Finished) -> dict[str, dict[str, Any]]:
    """Confusion matrices of the baseline and the tuned model, each cell with its share of the row."""
    found = {}
    for name in dict.fromkeys([job.best_baseline, "tuned"]):
        each = job.evaluations.get(name) or {}
        if each.get("confusion"):
            rows = [[(count, count / max(1, sum(row))) for count in row] for row in each["confusion"]]
            found[name] = {"labels": each["labels"], "rows": rows}
    return found


def _billed(job: Finished) -> bool:
    """Whether there is a bill, by machine and place; a place that is not installed any more is taken to send one."""
    if job.record is None:
        return job.result["platform"]["name"] not in ("local", "docker")
    if job.record.estimate is not None and job.record.estimate["price"]["kind"] == "free":
        return False
    try:
        return registry.load(job.record.backend).create().bills
    except InputError:
        return True


def day(record: Record | None) -> str:
    """When a job was seen to have ended; empty where that is not known."""
    ended = record.ended if record else None
    return "" if ended is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(ended))
