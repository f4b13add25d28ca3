"""``ftlaunch try``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import common
from training_image.errors import InputError

if TYPE_CHECKING:
    from launcher.answers import Answers


@click.command(epilog="Example: `ftlaunch try definitions-1a2b 'a small bird that cannot fly'`")
@common.job_argument
@click.argument("text")
@click.option("--context", metavar="TEXT", help="The text that answers TEXT, where the task is qa.")
@common.json_option
def command(job: str, text: str, context: str | None, as_json: bool) -> None:
    """Ask the base model and the tuned one of JOB about TEXT, side by side, on this machine.

    For classification the probability of every label is shown.
    """
    with common.opened_store() as store:
        record = common.find_record(store, job)
    folder = Path(record.output) if record.output else None
    if folder is None or not folder.is_dir():
        raise InputError(f"the results of {record.job} are not here", hint=f"ftlaunch fetch {record.job}")
    from launcher.answers import ask

    with common.asked(common.local()):
        answers = ask(record, folder, text, context)
    if as_json:
        common.show_json({"job": record.job} | asdict(answers))
    else:
        _show(answers)


def _show(answers: Answers) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for column in ("", "base", "tuned"):
        table.add_column(column, overflow="fold")
    table.add_row("answer", answers.base.text if answers.base else "-", answers.tuned.text)
    before, tuned = answers.base and answers.base.probabilities, answers.tuned.probabilities
    if tuned is not None:
        for label in sorted(tuned, key=lambda label: -tuned[label]):
            table.add_row(label, f"{before[label]:.3f}" if before else "-", f"{tuned[label]:.3f}")
    Console().print(table)
