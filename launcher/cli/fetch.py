"""``ftlaunch fetch``."""

from __future__ import annotations

from pathlib import Path

import click

from backends.interface import BackendError
from launcher import by_hand, results
from launcher.cli import common
from launcher.cli.summary import show
from launcher.store import Record, Store
from launcher.watch import refresh


@click.command(epilog="Example: `ftlaunch fetch definitions-1a2b --output my-results`")
@common.job_argument
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results; default: as `run` was told.")
@click.option("--from", "archive", type=click.Path(path_type=Path), help="Archive that the job's notebook left.")
@common.json_option
def command(job: str, output: Path | None, archive: Path | None, as_json: bool) -> int:
    """Bring the results of JOB here, checked file by file: its name, or an unambiguous beginning of it.

    Of a failed or cancelled job comes what it saved. A fetch that was broken off goes on where it was.
    """
    with common.opened_store() as store:
        record = common.find_record(store, job)
        folder = (
            _fetched(record, store, output)
            if archive is None
            else by_hand.take_in(record, archive, store, output, common.say)
        )
        record = store.get(record.job) or record
    if as_json:
        common.show_json(record.document() | {"output": None if folder is None else str(folder)})
    elif folder is not None:
        show(folder)
    if folder is None:
        common.say(f"{record.job} left no results")
        return common.FAILED
    return 0


def _fetched(record: Record, store: Store, output: Path | None) -> Path | None:
    backend = common.backend_of(record)
    with common.asked(backend):
        record, problem = refresh(record, store, backend)
        if record.ended is None:
            raise BackendError(
                problem or f"{record.job} has not ended yet", hint=f"ftlaunch logs -f {record.job} follows it"
            )
        return results.collect(record, store, backend, output, common.say)
