"""Promises about status, errors and logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.conformance.jobs import attempt, step_of
from backends.conformance.promise import expect, promise
from backends.interface import BackendError, Handle, JobNotFound, LogLine, State, Status
from training_image import progress

if TYPE_CHECKING:
    from backends.conformance.harness import Harness

RANK = {State.QUEUED: 0, State.STARTING: 1, State.RUNNING: 2, State.STOPPING: 3}
"""How far a job is; every end ranks above them."""

CUTS = 6
"""In how many places a long log is cut."""


def _never_was(harness: Harness) -> Handle:
    return harness.unknown(harness.runs.finished.handle)


@promise()
def unknown_job_is_not_found(harness: Harness) -> None:
    """The status of a job that never was raises JobNotFound; it is never SUCCEEDED."""
    tried = attempt(lambda: harness.fresh().status(_never_was(harness)))
    expect(isinstance(tried.error, JobNotFound), f"the status of a job that never was: {tried!r}")


@promise()
def unknown_job_gives_nothing(harness: Harness) -> None:
    """Logs, fetch and cancel of a job that never was raise JobNotFound, and so does resume where it is offered."""
    handle = _never_was(harness)
    folder = harness.folder / "never-was"
    folder.mkdir()
    backend = harness.fresh()
    verbs: dict[str, Callable[[], object]] = {
        "logs": lambda: list(backend.logs(handle, None)),
        "fetch": lambda: backend.fetch(handle, folder),
        "cancel": lambda: backend.cancel(handle),
    }
    if backend.capabilities.resume:
        verbs["resume"] = lambda: backend.resume(handle)
    for verb, call in verbs.items():
        tried = attempt(call)
        expect(isinstance(tried.error, JobNotFound), f"{verb} of a job that never was: {tried!r}")
    expect(not list(folder.iterdir()), "fetch wrote something for a job that never was")


@promise()
def malformed_handle_is_refused(harness: Harness) -> None:
    """A handle of an older version, or written by hand, is a BackendError and no traceback."""
    handle = Handle(backend=harness.backend.name, job_name=f"never-was-{harness.session}", data={"no": ["such", "key"]})
    tried = attempt(lambda: harness.fresh().status(handle))
    expect(isinstance(tried.error, BackendError), f"the status of a malformed handle: {tried!r}")


@promise()
def errors_say_what_to_do(harness: Harness) -> None:
    """Every error has a message and a hint."""
    tried = attempt(lambda: harness.fresh().status(_never_was(harness)))
    if isinstance(tried.error, BackendError):
        expect(bool(tried.error.message and tried.error.hint), f"no message or no hint: {tried.error!r}")


@promise()
def good_job_succeeds(harness: Harness) -> None:
    """A good job ends in SUCCEEDED, with no reason."""
    run = harness.runs.finished
    tail = "".join(f"\n    | {line.text}" for line in run.lines[-12:])
    expect(run.end.state == State.SUCCEEDED, f"the good job ended as {run.end!r}{tail}")
    expect(run.end.reason is None, f"SUCCEEDED has a reason: {run.end!r}")


@promise()
def states_only_move_forward(harness: Harness) -> None:
    """QUEUED, STARTING, RUNNING, STOPPING, end: a state may be left out, none comes back (UNKNOWN may come between)."""
    for run in (harness.runs.finished, harness.runs.cancelled.run):
        trail = [status.state for status in run.trail if status.state != State.UNKNOWN]
        ranks = [RANK.get(state, len(RANK)) for state in trail]
        expect(ranks == sorted(ranks), f"{run.handle.job_name} went back: {' '.join(trail)}")


@promise()
def an_end_stays(harness: Harness) -> None:
    """An ended job tells the same state and reason for ever."""
    run = harness.runs.finished
    told = [(status.state, status.reason) for status in (run.end, *run.afterwards)]
    expect(len(set(told)) == 1, f"the end changed: {told}")


@promise()
def an_end_is_an_end(harness: Harness) -> None:
    """When an end is told, a failure and the time limit among them, nothing runs any more: STOPPING is told until the
    training has saved and gone."""
    runs = harness.runs
    # Other promises tell where these two do not end at all.
    failed = [attempt(lambda: runs.raced.run).value, attempt(lambda: runs.limited).value]
    for run in (runs.cancelled.run, runs.finished, *(each for each in failed if each is not None)):
        running = run.census.running
        expect(running == 0, f"{run.handle.job_name} was {run.end.state} while {running} still ran")


@promise()
def billable_seconds_are_told(harness: Harness) -> None:
    """An ended job tells its billable seconds where the capability says so, and None elsewhere."""
    promised = harness.backend.capabilities.billable_seconds
    end: Status = harness.fresh().status(harness.runs.finished.handle)
    if promised:
        expect((end.billable_seconds or 0) > 0, f"no billable seconds: {end!r}")
    else:
        expect(end.billable_seconds is None, f"billable seconds, though the capability denies them: {end!r}")


@promise()
def log_lines_are_lines(harness: Harness) -> None:
    """A log line is one line without its line break, and no two have one cursor."""
    lines = harness.runs.finished.lines
    expect(bool(lines), "the good job has no log")
    broken = [line for line in lines if "\n" in line.text or line.text.endswith("\r")]
    expect(not broken, f"line breaks in {broken[:3]}")
    expect(len({line.cursor for line in lines}) == len(lines), "two lines have one cursor")


@promise(needs="log_cursor")
def logs_follow_without_loss(harness: Harness) -> None:
    """Who reads on with the last cursor while the job runs has in the end the whole log, each line once."""
    for run in (harness.runs.finished, harness.runs.cancelled.run):
        expect(_texts(run.followed) == _texts(run.lines), _difference(run.followed, run.lines))


@promise(needs="log_cursor")
def logs_resume_anywhere(harness: Harness) -> None:
    """Reading on after any line gives exactly the lines after it."""
    run = harness.runs.finished
    whole = list(harness.fresh().logs(run.handle, None))
    stride = max(1, len(whole) // CUTS)
    for cut in sorted({*range(0, len(whole), stride), len(whole) - 1}):
        rest = list(harness.fresh().logs(run.handle, whole[cut].cursor))
        expect(_texts(rest) == _texts(whole[cut + 1 :]), f"after line {cut}: {_difference(rest, whole[cut + 1 :])}")


@promise()
def logs_end(harness: Harness) -> None:
    """The log's iterator ends when there are no more lines now; it does not wait for the job."""
    cancelled = harness.runs.cancelled
    expect(cancelled.logs_ended, f"logs of a running job did not end within {harness.answer_seconds} s")


@promise()
def logs_are_in_order(harness: Harness) -> None:
    """The lines come in the order in which they were printed."""
    for run in (harness.runs.finished, harness.runs.cancelled.run):
        steps = [step_of(line) for line in run.lines if step_of(line) >= 0]
        expect(steps == sorted(steps), f"{run.handle.job_name}: training steps in the order {steps}")


@promise()
def progress_lines_parse(harness: Harness) -> None:
    """The container's progress lines arrive as they were printed: with nothing before or after them."""
    lines = harness.runs.finished.lines
    stages = {parsed[0] for line in lines if (parsed := progress.parse(line.text)) is not None}
    expect("train" in stages, f"no [train] line parses; the log begins {_texts(lines[:5])}")


def _texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


def _difference(given: list[LogLine], wanted: list[LogLine]) -> str:
    """Where two logs part."""
    for number, (one, other) in enumerate(zip(given, wanted, strict=False)):
        if one.text != other.text:
            return f"line {number} is {one.text!r} instead of {other.text!r}"
    return f"{len(given)} lines instead of {len(wanted)}"
