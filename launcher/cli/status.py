"""``ftlaunch status``."""

from __future__ import annotations

import time

import click

from backends.interface import State
from launcher.cli import common
from launcher.store import Record
from launcher.watch import latest, refresh

CODES = {State.SUCCEEDED: 0, State.FAILED: 1, State.CANCELLED: 5, State.UNKNOWN: 6}
"""Exit codes of an ended job; one that has not ended gives `LIVE`."""
LIVE = 4


@click.command(
    epilog="Example: `ftlaunch status definitions-1a2b`. Ends with 0: succeeded, 1: failed, 2: no such job, 3: the "
    "place cannot be asked and the record knows no end, 4: not ended yet, 5: cancelled, 6: its place knows no such job."
)
@common.job_argument
@common.json_option
def command(job: str, as_json: bool) -> int:
    """Tell how JOB stands: its name, or an unambiguous beginning of it.

    With the last value of each metric, and links. An ended job is told from the record, without asking its place.
    """
    with common.opened_store() as store:
        record = common.find_record(store, job)
        backend = common.backend_of(record) if record.ended is None else None
        problem = ""
        if backend is not None:
            with common.asked(backend):
                record, problem = refresh(record, store, backend)
                if not problem:
                    record = store.update(record.job, **latest(record, backend))
    if problem:
        common.say(problem)
    if as_json:
        common.show_json(record.document())
    else:
        _tell(record)
    if problem and record.ended is None and record.submitted is not None:
        return common.REFUSED
    return CODES.get(record.state, LIVE)


def _tell(record: Record) -> None:
    click.echo(f"{record.job} on {record.backend}: {record.state}" + (f" ({record.reason})" if record.reason else ""))
    if record.message:
        click.echo(f"  {record.message}")
    for name, value in record.metrics.items():
        click.echo(f"  {name} {value:.6g}")
    for name, link in record.links.items():
        click.echo(f"  {name} {link}")
    # An end is known from the first look that saw it.
    for name, moment in (("created", record.created), ("ended by", record.ended)):
        if moment is not None:
            click.echo(f"  {name} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(moment))}")
    if record.output:
        click.echo(f"  results {record.output}")
    elif record.ended is not None:
        click.echo(f"  results: ftlaunch fetch {record.job}")
