"""``ftlaunch cancel``."""

from __future__ import annotations

import time

import click

from backends.interface import Backend, BackendError, Reason, State
from launcher.cli import common
from launcher.store import Record, Store
from launcher.watch import refresh


@click.command(epilog="Example: `ftlaunch cancel definitions-1a2b`, then `ftlaunch fetch` brings what it saved.")
@common.job_argument
@common.json_option
def command(job: str, as_json: bool) -> None:
    """Stop JOB: its name, or an unambiguous beginning of it.

    It saves a checkpoint first; an ended job stays as it is.
    """
    with common.opened_store() as store:
        record = common.find_record(store, job)
        backend = common.backend_of(record)
        with common.asked(backend):
            if record.ended is None and record.submitted is None:
                record = _cancel_unconfirmed(record, store, backend)
            elif record.ended is None and record.handle is not None:
                backend.cancel(record.handle)
                record, problem = refresh(record, store, backend)
                if problem:
                    common.say(problem)
    common.say(f"{record.job} is {record.state}")
    if as_json:
        common.show_json(record.document())


def _cancel_unconfirmed(record: Record, store: Store, backend: Backend) -> Record:
    """Cancel a job that no place has confirmed. A launcher that is at it looks at the record before it submits; what it
    has started after all is stopped. Raises BackendError where the place cannot be asked: the job stays live then.
    """
    changes = {"state": State.CANCELLED, "reason": Reason.USER, "message": "cancelled before it was started"}
    store.update(record.job, **changes, ended=time.time())
    try:
        with store.lock(record.job, lambda: common.say(f"waiting for the launcher that is starting {record.job}")):
            handle = backend.find(record.job)
            if handle is not None and not backend.status(handle).state.ended:
                backend.cancel(handle)
    except BackendError:
        store.update(record.job, state=record.state, reason=record.reason, message=record.message, ended=None)
        raise
    if handle is None:
        return store.update(record.job)
    store.update(record.job, handle=handle, submitted=record.submitted or time.time())
    return store.observe(record.job, backend.status(handle))
