"""``ftlaunch compare``: finished jobs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import common, complete
from training_image.errors import InputError

if TYPE_CHECKING:
    from launcher.report.compare import Comparison, Pair


@click.command(epilog="Example: `ftlaunch compare definitions-1a2b definitions-3c4d --output both.html`")
@click.argument("jobs", metavar="JOB JOB...", nargs=-1, required=True, shell_complete=complete.jobs)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML page as well.")
@common.json_option
def command(jobs: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Show finished jobs side by side, and whether one of any two is better for sure.

    Each JOB is a name, a beginning of it, or a results folder. Two jobs are compared row by row where they answered
    the same test rows, by the paired bootstrap that the verdict uses.
    """
    from launcher.report import finished
    from launcher.report.compare import compare

    if len(jobs) < 2:
        raise InputError("one job alone cannot be compared", hint="name two or more; ftlaunch report shows one")
    with common.opened_store() as store:
        found = [finished.read(*common.find_results(store, job)) for job in jobs]
    made = compare(found)
    if output is not None:
        _write(made, output)
        common.say(f"wrote {output}")
    if as_json:
        common.show_json(made.document())
    else:
        _show(made)


def _write(made: Comparison, output: Path) -> None:
    from launcher.report import charts, page
    from launcher.report.finished import NAMES

    sure = [f"{pair.better} is better than {_other(pair)}" for pair in made.pairs if pair.better]
    summary = "; ".join(sure) + "." if sure else "No clear difference between any two of them."
    picture = charts.intervals({each.job: (each.value, each.ci95) for each in made.jobs}, made.metric)
    values = made.document() | {"names": NAMES, "summary": summary, "picture": picture, "cost": page.cost}
    text = page.render("compare.html.j2", **values)
    page.write(text, output)


def _other(pair: Pair) -> str:
    return pair.second if pair.better == pair.first else pair.first


def _show(made: Comparison) -> None:
    from rich.table import Table

    from launcher.report.page import cost, number, seconds, setting, words

    table = Table("job", made.metric, "95 % interval", "rows", "by", "its verdict", "time", "cost", box=None)
    for each in made.jobs:
        between = f"{number(each.ci95[0])} to {number(each.ci95[1])}"
        told = (words(each.answered_by), words(each.outcome), seconds(each.seconds), cost(each.usd, each.estimate_usd))
        table.add_row(each.job, number(each.value), between, str(each.n), *told)
    common.print_table(table, ("time", "by", "rows", "its verdict"))
    for name, values in made.differences.items():
        click.echo(f"{words(name)}: {', '.join(setting(value) for value in values)}")
    for pair in made.pairs:
        if pair.ci95 is None:
            click.echo(f"{pair.first} and {pair.second}: {pair.why_not}")
            continue
        low, high = pair.ci95
        said = f"{pair.better} is better" if pair.better else "no clear difference"
        numbers = f"{number(pair.difference, True)}, 95 % interval {number(low, True)} to {number(high, True)}"
        click.echo(f"{pair.first} minus {pair.second}: {numbers}: {said}")
