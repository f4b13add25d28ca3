"""``ftlaunch check``: every row of a job, before anything is trained or paid for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends import registry
from launcher import submission
from launcher.cli import common
from launcher.job import load
from launcher.plugins import lacking_in_image
from training_image import loading
from training_image.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@click.command(
    epilog="Example: `ftlaunch check examples/definitions --set data.max_length=256`. Ends with 2 if refused."
)
@common.job_file_argument
@common.backend_option
@common.set_option
@common.json_option
@click.pass_context
def command(ctx: click.Context, job: str | None, backend: str | None, sets: tuple[str, ...], as_json: bool) -> int:
    """Read, render and count every row of the job file JOB on the CPU: faults, repeats, leaks, doubtful labels,
    shortcuts, drift, lengths, and three samples with what of them is trained.

    A job that cannot be trained on is refused.
    """
    file = load(job, sets, common.chosen_backend(ctx, backend))
    spec = submission.with_own_paths(file)
    try:
        from training_image.data.check import check

        with loading.quickly():
            report = check(spec, Path.cwd()).as_json()
    except ImportError as error:
        raise InputError(f"the check needs {error.name}", hint="pip install 'ftlaunch[local]'") from None
    lacking = lacking_in_image(file, registry.load(file.job.backend).create())
    if lacking is not None:
        finding = {"level": "error", "code": "plugin", "message": lacking.message, "rows": [], "hint": lacking.hint}
        report |= {"ok": False, "findings": [finding, *report["findings"]]}
    if as_json:
        common.show_json(report)
    else:
        _show(report)
    return 0 if report["ok"] else common.WRONG_INPUT


def _show(report: Mapping[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if report["counts"]:
        _counts(console, report["counts"])
    _labels(console, report["counts"])
    for sample in report["samples"]:
        show_sample(console, sample)
    for finding in report["findings"]:  # last, where they are not scrolled away
        _finding(console, finding)
    errors = sum(finding["level"] == "error" for finding in report["findings"])
    told = f"refused: {errors} error{'s' if errors > 1 else ''}" if errors else "ok"
    console.print(told, style="bold red" if errors else "bold green")


def _counts(console: Console, counts: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table("rows", *counts)
    names = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    for name in names:
        values = [of_split.get(name, 0) for of_split in counts.values()]
        if all(isinstance(value, int) for value in values):
            table.add_row(name.replace("_", " "), *map(str, values))
    for reason in dict.fromkeys(reason for of_split in counts.values() for reason in of_split["dropped"]):
        dropped = (str(of_split["dropped"].get(reason, 0)) for of_split in counts.values())
        table.add_row(f"dropped, as asked: {reason.replace('_', ' ')}", *dropped)
    for rank in dict.fromkeys(rank for of_split in counts.values() for rank in of_split.get("tokens", {})):
        lengths = (str(of_split.get("tokens", {}).get(rank, "")) for of_split in counts.values())
        table.add_row(f"tokens a row, {rank}", *lengths)
    console.print(table)


def _labels(console: Console, counts: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    labels = dict.fromkeys(label for of_split in counts.values() for label in of_split.get("labels", {}))
    if labels:
        table = Table("label", *counts)
        for label in labels:
            table.add_row(escape(label), *(str(of_split["labels"].get(label, 0)) for of_split in counts.values()))
        console.print(table)


def _finding(console: Console, finding: Mapping[str, Any]) -> None:
    from rich.text import Text

    console.print(
        Text.assemble((f"{finding['level']}: ", COLOURS[finding["level"]]), finding["message"]), soft_wrap=True
    )
    for row in finding["rows"][:5] if any(set(row) - {"split", "row", "id"} for row in finding["rows"]) else ():
        more = ", ".join(f"{key} {_said(value)}" for key, value in row.items() if key not in ("split", "row", "id"))
        console.print(Text(f"    {row['split']} row {row['row']}: {more}"), soft_wrap=True)
    if finding["hint"]:
        console.print(Text(f"  {finding['hint']}", style="dim"), soft_wrap=True)


def _said(value: Any) -> str:
    return f"{value['split']} row {value['row']}" if isinstance(value, dict) else str(value)


def show_sample(console: Console, sample: Mapping[str, Any]) -> None:
    """A rendered row; what is trained stands in double brackets (and in green on a terminal)."""
    from rich.panel import Panel
    from rich.text import Text

    text = Text()
    for segment in sample["segments"]:
        if segment["supervised"]:
            text.append(f"⟦{segment['text']}⟧", style="bold green")
        else:
            text.append(segment["text"], style="dim")
    title = f"{sample['split']} row {sample['row']}, {sample['tokens']} tokens, ⟦trained⟧"
    console.print(Panel(text, title=title, title_align="left"))
