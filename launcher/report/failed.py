"""The page of a job that came to no verdict: what ended it, how far the training came, what to try next."""

from __future__ import annotations

from pathlib import Path

from launcher.report import charts, page
from launcher.report.finished import history
from launcher.store import Record
from training_image.errors import InputError


def is_failed(folder: Path, record: Record | None) -> bool:
    """Whether the folder holds what a failed job saved."""
    return record is not None and record.state == "FAILED" and not (folder / "result.json").is_file()


def failed_page(folder: Path, record: Record) -> str:
    """The whole page as HTML. Raises InputError where the extra ``report`` is missing or a file is broken."""
    lines = history(folder)
    names = dict.fromkeys(name for line in lines for name in line if name.startswith("validation/"))
    of = {name: [(line["step"], line[name]) for line in lines if line.get(name) is not None] for name in names}
    of["train/loss"] = [(line["step"], line["train/loss"]) for line in lines if line.get("train/loss") is not None]
    message, _, hint = record.message.partition("\n")
    try:
        losses = {name: of.pop(name, []) for name in ("train/loss", "validation/loss")}
        pictures = [charts.curves(losses, "loss"), charts.curves(dict(list(of.items())[:1]), "on validation rows")]
        told = {"message": message, "hint": hint.strip(), "ended": page.day(record)}
        return page.render("failed.html.j2", record=record, pictures=pictures, **told)
    except ModuleNotFoundError as error:
        raise InputError(f"the page needs {error.name}", hint="pip install 'ftlaunch[report]'") from error
