"""Promises about going on from the last checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.conformance.jobs import last_step
from backends.conformance.promise import expect, promise
from backends.conformance.runs import Resumed
from backends.interface import Reason, State

if TYPE_CHECKING:
    from backends.conformance.harness import Harness


@promise(needs="resume")
def resume_of_a_running_job_starts_nothing(harness: Harness) -> None:
    """Resuming a job that runs gives it back as it is."""
    cancelled = harness.runs.cancelled
    given = cancelled.resumed.get("resume of a running job")
    expect(given == cancelled.run.handle, f"resume of a running job gave {given!r}")
    expect(cancelled.census_then.started == 1, f"resume of a running job made {cancelled.census_then!r}")


@promise(needs="resume")
def resume_after_cancel(harness: Harness) -> None:
    """A cancelled job that is resumed goes on from its checkpoint, to SUCCEEDED."""
    _expect_resumed(harness.runs.resumed)


@promise(needs="resume")
def cancel_lets_the_training_save(harness: Harness) -> None:
    """A cancel gives the training the time to save: no step told before it is trained again."""
    resumed = harness.runs.resumed
    told = last_step(resumed.broken.lines)
    if resumed.resumed_from is not None:
        expect(resumed.resumed_from >= told, f"step {told} was done, the resume began at {resumed.resumed_from}")


@promise(needs="resume")
def killed_job_fails(harness: Harness) -> None:
    """A job whose machine dies ends in FAILED, not by the user's will (or is resumed by the place itself)."""
    end = harness.runs.killed.end
    failed = end.state == State.FAILED and end.reason not in (None, Reason.USER, Reason.BAD_DATA)
    expect(failed or end.state == State.SUCCEEDED, f"the killed job ended as {end!r}")


@promise(needs="resume")
def resume_after_kill(harness: Harness) -> None:
    """A job whose machine died and that is resumed goes on from its last checkpoint, to SUCCEEDED."""
    _expect_resumed(harness.runs.killed_resumed)


@promise(needs="resume")
def logs_go_on_after_resume(harness: Harness) -> None:
    """A resumed job's log begins with the lines it had before; the old cursor leads to the new lines."""
    resumed = harness.runs.resumed
    before = [line.text for line in resumed.broken.lines]
    whole = [line.text for line in resumed.run.lines]
    expect(whole[: len(before)] == before, f"the first {len(before)} lines are gone; the log begins {whole[:3]}")
    if harness.backend.capabilities.log_cursor:
        new = [line.text for line in resumed.run.followed]
        expect(
            new == whole[len(before) :], f"after the old cursor: {len(new)} lines, of {len(whole) - len(before)} new"
        )


@promise(needs="spot")
def spot_interruption_resumes(harness: Harness) -> None:
    """A job whose spot machine is taken away goes on from its checkpoint: by the place itself, or by `resume` after
    FAILED with SPOT_INTERRUPTED."""
    interrupted = harness.runs.interrupted
    end = interrupted.broken.end
    told = (end.state, end.reason) == (State.FAILED, Reason.SPOT_INTERRUPTED) or end.state == State.SUCCEEDED
    expect(told, f"the interrupted job ended as {end!r}")
    _expect_resumed(interrupted)


def _expect_resumed(resumed: Resumed) -> None:
    end = resumed.run.end
    expect(end.state == State.SUCCEEDED, f"the resumed job ended as {end!r}")
    expect(resumed.resumed_from is not None, "the resumed job began anew: training.resumed_from is null")
