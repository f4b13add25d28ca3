"""The page of a job that came to no verdict: what ended it, how far the training came, what to try next."""

from __future__ import annotations

from pathlib import Path

from launcher.report import charts, page
from launcher.report.finished import history
from launcher.store import Record


def is_failed(folder: Path, record: Record) -> bool:
    """Whether the folder holds what a failed job saved."""
    return record.state == "FAILED" and not (folder / "result.json").is_file()


@page.needing_extra()
def failed_page(folder: Path, record: Record) -> str:
    """The whole page as HTML. Raises InputError where the extra ``report`` is missing or a file is broken."""
    lines = history(folder)
    losses = {name: page.series(lines, name) for name in ("train/loss", "validation/loss")}
    names = (name for line in lines for name in line if name.startswith("validation/") and name not in losses)
    metric = {name: page.series(lines, name) for name in [*names][:1]}
    message, _, hint = record.message.partition("\n")
    pictures = [charts.curves(losses, "loss"), charts.curves(metric, "on validation rows")]
    told = {"message": message, "hint": hint.strip(), "ended": page.day(record)}
    return page.render("failed.html.j2", record=record, pictures=pictures, **told)
