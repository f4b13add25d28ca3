"""``ftlaunch fetch``."""

from __future__ import annotations

from pathlib import Path

import click

from backends.interface import BackendError
from launcher import results
from launcher.cli import common
from launcher.cli.summary import show
from launcher.watch import refresh


@click.command(epilog="Example: `ftlaunch fetch definitions-1a2b --output my-results`")
@click.argument("job")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results; default: as `run` was told.")
@common.json_option
def command(job: str, output: Path | None, as_json: bool) -> int:
    """Bring the results of JOB here, checked file by file: its name, or an unambiguous beginning of it.

    Of a failed or cancelled job comes what it saved. A fetch that was broken off goes on where it was.
    """
    with common.opened_store() as store:
        record = common.find_record(store, job)
        backend = common.backend_of(record)
        with common.asked(backend):
            record, problem = refresh(record, store, backend)
            if record.ended is None:
                raise BackendError(
                    problem or f"{record.job} has not ended yet", hint=f"ftlaunch logs -f {record.job} follows it"
                )
            folder = results.collect(record, store, backend, output, common.say)
        record = store.get(record.job) or record
    if as_json:
        common.show_json(record.document() | {"output": None if folder is None else str(folder)})
    elif folder is not None:
        show(folder)
    if folder is None:
        common.say(f"{record.job} left no results")
        return common.FAILED
    return 0
