"""``ftlaunch curve``: would more data help?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backends.interface import State
from launcher import lifecycle, results
from launcher.cli import common
from launcher.cli.run import ask, launched
from launcher.job import JobFile, load
from launcher.store import Record, Store
from training_image.errors import InputError

if TYPE_CHECKING:
    from launcher.report.learning_curve import Curve


@click.command(
    epilog="Example: `ftlaunch curve examples/definitions --shares 25,50,100 --output curve.html`. Points that were "
    "measured before are not run again."
)
@common.job_file_argument
@common.backend_option
@common.set_option
@click.option("--shares", default="25,50,100", show_default=True, help="Percent of the training rows, smallest first.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML page as well.")
@common.json_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask before something is paid for.")
@click.pass_context
def command(
    ctx: click.Context,
    job: str | None,
    backend: str | None,
    sets: tuple[str, ...],
    shares: str,
    output: Path | None,
    as_json: bool,
    yes: bool,
) -> int:
    """Train on parts of the data of the job file JOB, each inside the next, and say whether more would help.

    All are judged on the same test rows; each point is a job of its own.
    """
    from launcher.report import finished
    from launcher.report.learning_curve import judge

    percents = _percents(shares)
    file = load(job, sets, common.chosen_backend(ctx, backend))
    found = []
    with common.opened_store() as store:
        for percent, rows, part in _parts(file, percents):
            common.say(f"{percent} % of the training rows: {rows}")
            record = _finished(part, store, yes)
            if record is None:
                return common.INTERRUPTED
            if record.state is not State.SUCCEEDED:
                common.say(f"error: {record.job} is {record.state} ({record.reason or 'UNKNOWN'}): {record.message}")
                return common.code_of(record)
            folder = results.collect(record, store, common.backend_of(record), None, common.say)
            assert folder is not None  # it succeeded
            found.append((percent, rows, finished.read(folder, record)))
    curve = judge(found)
    if output is not None:
        _write(curve, output)
        common.say(f"wrote {output}")
    if as_json:
        common.show_json(curve.document())
    else:
        _show(curve)
    return 0


def _percents(text: str) -> list[int]:
    try:
        percents = [int(part) for part in text.split(",")]
    except ValueError:
        percents = []
    if len(percents) < 2 or percents != sorted(set(percents)) or not 1 <= percents[0] <= percents[-1] <= 100:
        raise InputError(f"--shares {text}: expected whole percents, smallest first", hint="--shares 25,50,100")
    return percents


def _parts(file: JobFile, percents: list[int]) -> list[tuple[int, int, JobFile]]:
    """Percent, rows and job of each point."""
    from launcher.rows import nested, read_splits, with_rows

    splits = read_splits(file)
    made = []
    for percent in percents:
        train = nested(file, splits, max(1, round(len(splits.train) * percent / 100)))
        part = with_rows(file, train, splits.validation, splits.test)
        # A good baseline must not end a point untrained, and what was forgotten is not asked here.
        evaluate = part.job.evaluate.model_copy(update={"enough": None, "forgetting": False})
        job = part.job.model_copy(update={"name": f"{file.stem[:48]}-curve", "evaluate": evaluate})
        made.append((percent, len(train), dataclasses.replace(part, job=job)))
    return made


def _finished(file: JobFile, store: Store, yes: bool) -> Record | None:
    """The point's job at its end: an earlier one, or one that is run now; None if the user left."""
    from launcher.cli.follow import follow

    planned = lifecycle.make_plan(file, store)
    if planned.done is not None:
        return planned.done
    lifecycle.check_data(planned, common.say)
    ask(planned, yes)
    return follow(launched(planned, store, None), store)


def _write(curve: Curve, output: Path) -> None:
    from launcher.report import charts, page

    points = [(each.rows, each.value, each.ci95) for each in curve.points if each.value is not None]
    picture = charts.points_with_intervals(points, "training rows", curve.metric)
    page.write(page.render("curve.html.j2", **curve.document(), picture=picture), output)


def _show(curve: Curve) -> None:
    from rich.table import Table

    from launcher.report.page import number

    table = Table("share", "training rows", curve.metric, "95 % interval", "job", box=None)
    for each in curve.points:
        between = f"{number(each.ci95[0])} to {number(each.ci95[1])}"
        table.add_row(f"{each.percent} %", str(each.rows), number(each.value), between, each.job)
    common.print_table(table, ("job",))
    click.echo(curve.text)
