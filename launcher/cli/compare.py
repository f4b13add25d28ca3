"""``ftlaunch compare``: finished jobs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import common, complete
from training_image.errors import InputError

if TYPE_CHECKING:
    from launcher.report.compare import Comparison, Entry, Measured


@click.command(epilog="Example: `ftlaunch compare definitions-1a2b definitions-3c4d --output both.html`")
@click.argument("jobs", metavar="JOB JOB...", nargs=-1, required=True, shell_complete=complete.jobs)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML page as well.")
@common.json_option
def command(jobs: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Show finished jobs side by side, and whether one of any two is better for sure.

    Each JOB is a name, a beginning of it, or a results folder. Two jobs are compared row by row where they answered
    the same test rows, by the paired bootstrap that the verdict uses.
    """
    from launcher.report import compare_page, finished, page
    from launcher.report.compare import compare

    if len(jobs) < 2:
        raise InputError("one job alone cannot be compared", hint="name two or more; ftlaunch report shows one")
    with common.opened_store() as store:
        found = [finished.read(*common.find_results(store, job)) for job in jobs]
    made = compare(found)
    if output is not None:
        page.write(compare_page.page(made, found), output)
        common.say(f"wrote {output}")
    if as_json:
        common.show_json(made.document())
    else:
        _show(made)


def _show(made: Comparison) -> None:
    from rich.table import Table

    from launcher.report.finished import NAMES
    from launcher.report.page import cost, number, seconds, setting, words

    table = Table("job", made.metric, "95 % interval", "rows", "by", "its verdict", "time", "cost", box=None)
    for each in made.jobs:
        told = (words(each.answered_by), words(each.outcome), seconds(each.seconds), cost(each.usd, each.estimate_usd))
        table.add_row(each.job, number(each.value), _between(each.ci95), str(each.n), *told)
    common.print_table(table, ("time", "by", "rows", "its verdict"))
    names = [name for name in NAMES if any(name in each.evaluations for each in made.jobs)]
    evaluations = Table("job", *(NAMES[name] for name in names), box=None)
    for each in made.jobs:
        evaluations.add_row(each.job, *(_measured(each.evaluations.get(name)) for name in names))
    common.print_table(evaluations, [NAMES[name] for name in names[:-1]])
    for name, values in made.differences.items():
        click.echo(f"{words(name)}: {', '.join(setting(value) for value in values)}")
    for each in made.jobs:
        _show_faults(each)
    for pair in made.pairs:
        if pair.ci95 is None:
            click.echo(f"{pair.first} and {pair.second}: {pair.why_not}")
            continue
        said = f"{pair.better} is better" if pair.better else "no clear difference"
        numbers = f"{number(pair.difference, True)}, 95 % interval {_between(pair.ci95, True)}"
        click.echo(f"{pair.first} minus {pair.second}: {numbers}: {said}")


def _show_faults(job: Entry) -> None:
    """The guards of a job and its worst gap; a group's name is data and may hold anything."""
    from launcher.report.page import clean, number, words

    for guard in job.guards or []:
        click.echo(f"{job.job}: {words(guard['code'])}: {clean(guard['evidence'])}")
    if gap := job.worst_gap:
        worst, best, column = (repr(clean(name)) for name in (gap.worst, gap.best, gap.column))
        click.echo(f"{job.job}: the worst gap: {worst} lies {number(gap.gap)} behind {best} of {column}")


def _between(bounds: tuple[float | None, float | None], sign: bool = False) -> str:
    from launcher.report.page import number

    return f"{number(bounds[0], sign)} to {number(bounds[1], sign)}"


def _measured(each: Measured | None) -> str:
    from launcher.report.page import number

    return f"{number(each.value)} ({_between(each.ci95)})" if each else "-"
