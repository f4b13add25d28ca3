"""Promises about staging and submitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.conformance.jobs import Tried, attempt, prepare, secret_values
from backends.conformance.promise import Violation, expect, promise
from backends.interface import BackendError, Handle, Unresolved

if TYPE_CHECKING:
    from backends.conformance.harness import Harness


@promise()
def submit_refuses_unresolved(harness: Harness) -> None:
    """A plan with anything unresolved is refused with a BackendError, and nothing is started."""
    job = prepare(harness, "unresolved", steps=harness.long_steps)
    name = harness.backend.name
    missing = Unresolved(path=f"backends.{name}.conformance", hint="Set it.")
    plan = job.plan.model_copy(update={"unresolved": (missing,)})
    harness.runs.started.append(plan.job_name)
    backend = harness.fresh()
    backend.stage(job.plan, job.files)
    tried = attempt(lambda: backend.submit(plan, secret_values(harness, job)))
    expect(isinstance(tried.error, BackendError), f"an unresolved plan was not refused: {tried!r}")
    expect(harness.census(plan.job_name).started == 0, "a job was started from an unresolved plan")


@promise()
def find_knows_nothing_before_submit(harness: Harness) -> None:
    """`find` gives None for a job that was never submitted."""
    before = harness.runs.repeated.before
    expect(before.error is None, f"find failed for a job that was never submitted: {before.error!r}")
    expect(before.value is None, f"find knows a job that was never submitted: {before.value!r}")


@promise()
def find_knows_the_job_after_submit(harness: Harness) -> None:
    """A backend made afresh finds the job by its name: the launcher may have died before it wrote the handle down."""
    repeated = harness.runs.repeated
    _same(repeated.after, repeated.handle, "find after the submit")


@promise()
def known_jobs_are_listed(harness: Harness) -> None:
    """A place that lists its jobs lists every one that it still holds; one that cannot gives an empty list."""
    run = harness.runs.finished
    listed = list(harness.fresh().known())
    expect(not listed or run.handle in listed, f"{run.handle.job_name} is not among the jobs known: {listed!r}")


@promise()
def submit_twice_is_one_job(harness: Harness) -> None:
    """A second submit of the same plan gives the same job, and starts nothing."""
    repeated = harness.runs.repeated
    _same(repeated.again, repeated.handle, "the second submit")
    started = repeated.census_again.started
    expect(started == 1, f"the place started {started} jobs for two submits of one plan")


@promise()
def submit_after_a_crash_is_one_job(harness: Harness) -> None:
    """A submit of the same plan by a backend made afresh gives the same job, and starts nothing."""
    repeated = harness.runs.repeated
    _same(repeated.anew, repeated.handle, "the submit by another backend")
    started = repeated.census_anew.started - repeated.census_again.started
    expect(started == 0, f"the place started {started} more jobs for the submit by another backend")


@promise()
def submit_at_once_is_one_job(harness: Harness) -> None:
    """Two submits of the same plan at the same moment start one job, and both give it."""
    raced = harness.runs.raced
    for tried in raced.handles:
        _same(tried, raced.run.handle, "one of two submits at the same moment")
    expect(raced.run.census.started == 1, f"two submits at the same moment started {raced.run.census.started} jobs")


@promise()
def submit_after_the_end_starts_nothing(harness: Harness) -> None:
    """A submit of a plan whose job has ended gives that job; running it again needs another name."""
    run = harness.runs.finished
    backend = harness.fresh()
    tried = attempt(lambda: backend.submit(run.job.plan, secret_values(harness, run.job)))
    started = harness.census(run.handle.job_name).started - run.census.started
    expect(started == 0, "a submit of an ended job started it again")
    _same(tried, run.handle, "the submit of an ended job")


@promise()
def job_outlives_the_launcher(harness: Harness) -> None:
    """A launcher killed (SIGKILL) right after the submit loses nothing: the job is found, or given by another submit
    that starts nothing, and ends as it should."""
    orphan, finished = harness.runs.orphan, harness.runs.finished
    expect(
        orphan.end.state == finished.end.state,
        f"the job whose launcher was killed ended as {orphan.end!r}, the one watched as {finished.end!r}",
    )
    started = orphan.census.started
    expect(started == 1, f"the place started {started} jobs for a launcher that was killed and the one after it")


@promise()
def stage_twice_sends_nothing(harness: Harness) -> None:
    """Staging goes by content: a second call, by a backend made afresh, sends no byte."""
    job = harness.runs.finished.job
    before = harness.bytes_sent()
    harness.fresh().stage(job.plan, job.files)
    sent = harness.bytes_sent() - before
    expect(sent == 0, f"staging the same files again sent {sent} bytes")


@promise()
def handle_survives_json(harness: Harness) -> None:
    """A handle names backend and job, and is found unchanged in the store: it survives writing and reading."""
    run = harness.runs.finished
    handle = run.handle
    again = Handle.model_validate_json(handle.model_dump_json())
    expect(again == handle, f"the handle changes by being written and read: {handle!r} became {again!r}")
    expect(handle.backend == harness.backend.name, f"the handle names the backend {handle.backend!r}")
    expect(handle.job_name == run.job.plan.job_name, f"the handle names the job {handle.job_name!r}")


def _same(tried: Tried[Handle] | Tried[Handle | None], handle: Handle, what: str) -> None:
    """Expect the same job."""
    if tried.error is None and tried.value is None:
        raise Violation(f"{what} knows nothing of the job")
    given = tried.get(what)
    expect(given == handle, f"{what} gave another job: {given!r} instead of {handle!r}")
