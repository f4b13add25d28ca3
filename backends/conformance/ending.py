"""Promises about how a job ends: cancelled, failed, at its limit, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.conformance.jobs import Watch, attempt, prepare, start
from backends.conformance.promise import expect, promise
from backends.interface import BackendError, Reason, State

if TYPE_CHECKING:
    from backends.conformance.harness import Harness, Trouble


@promise()
def cancel_ends_in_cancelled(harness: Harness) -> None:
    """A job cancelled while it trains ends in CANCELLED with the reason USER."""
    end = harness.runs.cancelled.run.end
    expect((end.state, end.reason) == (State.CANCELLED, Reason.USER), f"the cancelled job ended as {end!r}")


@promise()
def cancel_at_once_ends_in_cancelled(harness: Harness) -> None:
    """So does a job cancelled right after its submit, before its training could take a signal."""
    end = harness.runs.repeated.run.end
    expect((end.state, end.reason) == (State.CANCELLED, Reason.USER), f"the job cancelled at once ended as {end!r}")


@promise()
def cancel_twice_is_harmless(harness: Harness) -> None:
    """A second cancel, at once or after the end, is no error and changes nothing."""
    cancelled = harness.runs.cancelled
    cancelled.again.get("a second cancel")
    cancelled.late.get("a cancel after the end")


@promise()
def cancel_leaves_the_ended_alone(harness: Harness) -> None:
    """Cancelling a job that has ended leaves its state as it is."""
    handle = harness.runs.finished.handle
    before = harness.fresh().status(handle)
    harness.fresh().cancel(handle)
    after = harness.fresh().status(handle)
    expect(
        (after.state, after.reason) == (before.state, before.reason),
        f"a cancel after the end made {before!r} of it {after!r}",
    )


@promise()
def bad_data_is_named(harness: Harness) -> None:
    """A job with a broken row ends in FAILED with the reason BAD_DATA and a message."""
    end = harness.runs.raced.run.end
    expect((end.state, end.reason) == (State.FAILED, Reason.BAD_DATA), f"the job with bad data ended as {end!r}")
    expect(bool(end.message), f"no message for bad data: {end!r}")


@promise()
def time_limit_is_kept(harness: Harness) -> None:
    """The place stops a job at `max_seconds` by itself: FAILED with TIMED_OUT, or SUCCEEDED if the training saved in
    time by its deadline; never CANCELLED, which is the user's."""
    end = harness.runs.limited.end
    kept = end.state == State.SUCCEEDED or (end.state, end.reason) == (State.FAILED, Reason.TIMED_OUT)
    expect(kept, f"the job at its limit ended as {end!r}")


@promise(where="remote")
def failures_have_their_reason(harness: Harness) -> None:
    """No capacity and whatever else the harness can make happen is told by its reason, at submit or as status."""
    troubles = harness.levers().make_fail
    expect(Reason.NO_CAPACITY in troubles, "a remote place can lack capacity; the harness lacks make_fail[NO_CAPACITY]")
    for number, (reason, trouble) in enumerate(troubles.items()):
        told = _failure(harness, f"fail{number}", trouble)
        expect(told == reason, f"{reason} was told as {told}")


def _failure(harness: Harness, kind: str, trouble: Trouble) -> Reason | None:
    """The reason told for a job that is submitted in trouble."""
    job = prepare(harness, kind)
    with trouble():
        started = attempt(lambda: start(harness, job))
        if isinstance(started.error, BackendError):
            return started.error.reason
        watch = Watch(harness, started.get("the submit"))
        watch.to_end()
    return watch.trail[-1].reason


@promise()
def remove_twice_is_harmless(harness: Harness) -> None:
    """Removing an ended job twice is no error."""
    handle = harness.runs.repeated.run.handle
    harness.fresh().remove(handle)
    again = attempt(lambda: harness.fresh().remove(handle) is None)
    again.get("a second remove")
