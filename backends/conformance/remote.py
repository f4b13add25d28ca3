"""Promises about the way to the place: slow, broken, refused; or none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.conformance.audit import recording
from backends.conformance.jobs import attempt, prepare, start
from backends.conformance.promise import Violation, expect, promise
from backends.interface import BackendError, Reason

if TYPE_CHECKING:
    from backends.conformance.harness import Harness, Trouble


@promise(where="remote")
def throttled_calls_lose_nothing(harness: Harness) -> None:
    """A place that says "slow down" is asked again: status, find and logs come whole all the same."""
    _expect_whole(harness, harness.levers().throttle, "throttle")


@promise(where="remote")
def dropped_connections_lose_nothing(harness: Harness) -> None:
    """After a dropped connection no line is lost or repeated, and status and find answer."""
    _expect_whole(harness, harness.levers().drop_connection, "drop_connection")


def _expect_whole(harness: Harness, trouble: Trouble | None, name: str) -> None:
    if trouble is None:
        raise Violation(f"the place is remote, but the harness lacks the lever {name}")
    run = harness.runs.finished
    calm = harness.fresh().status(run.handle)
    known = harness.fresh().find(run.handle.job_name)
    with trouble():
        status = attempt(lambda: harness.fresh().status(run.handle)).get("status in trouble")
        found = attempt(lambda: harness.fresh().find(run.handle.job_name))
        lines = attempt(lambda: list(harness.fresh().logs(run.handle, None))).get("logs in trouble")
    expect(status == calm, f"in trouble {calm!r} is told as {status!r}")
    expect(found.error is None and found.value == known, f"in trouble find gives {found!r}")
    expect([line.text for line in lines] == [line.text for line in run.lines], "in trouble the log differs")


@promise(where="remote")
def expired_credentials_are_named(harness: Harness) -> None:
    """Expired credentials raise BackendError with the reason CREDENTIALS and a hint; planning goes on without them.

    Where an ended job is told from a record on this machine, and as before, it is the submit of another that raises it.
    """
    trouble = harness.levers().expire_credentials
    if trouble is None:
        raise Violation("the place is remote, but the harness lacks the lever expire_credentials")
    handle = harness.runs.finished.handle
    calm = harness.fresh().status(handle)
    with trouble():
        job = prepare(harness, "expired")
        told = attempt(lambda: harness.fresh().status(handle))
        error = attempt(lambda: start(harness, job)).error if told.value == calm else told.error
    if not isinstance(error, BackendError):
        raise Violation(f"with expired credentials the status raised {error!r}")
    expect(error.reason == Reason.CREDENTIALS, f"expired credentials were told as {error.reason}")
    expect(bool(error.hint), "no hint how to get new credentials")


@promise(where="here")
def this_machine_needs_no_network(harness: Harness) -> None:
    """A place on this machine is asked without the network (a unix socket is none)."""
    handle = harness.runs.finished.handle
    with recording() as reached:
        backend = harness.fresh()
        backend.status(handle)
        backend.find(handle.job_name)
        list(backend.logs(handle, None))
    expect(not reached.network, f"a place on this machine reached for {reached.network}")
