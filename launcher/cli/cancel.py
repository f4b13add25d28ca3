"""``ftlaunch cancel``."""

from __future__ import annotations

import time

import click

from backends.interface import Reason, State
from launcher.cli import common
from launcher.watch import refresh


@click.command(epilog="Example: `ftlaunch cancel definitions-1a2b`, then `ftlaunch fetch` brings what it saved.")
@click.argument("job")
@common.json_option
def command(job: str, as_json: bool) -> None:
    """Stop JOB: its name, or an unambiguous beginning of it.

    It saves a checkpoint first; an ended job stays as it is.
    """
    with common.opened_store() as store:
        record = common.find_record(store, job)
        backend = common.backend_of(record)
        with common.asked(backend):
            handle = record.handle or backend.find(record.job)
            if record.ended is None and handle is not None:
                backend.cancel(handle)
                record, problem = refresh(record, store, backend)
                if problem:
                    common.say(problem)
        if record.ended is None and handle is None:
            changes = {"state": State.CANCELLED, "reason": Reason.USER, "message": "cancelled before it was started"}
            record = store.update(record.job, **changes, ended=time.time())
    common.say(f"{record.job} is {record.state}")
    if as_json:
        common.show_json(record.document())
