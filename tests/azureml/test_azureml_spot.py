"""A preempted job: no signal, queued again by Azure ML itself, and it goes on from its checkpoint."""

import pytest

from backends.conformance.jobs import last_step
from backends.interface import State


@pytest.fixture(scope="module")
def preempted(harness):
    """The suite's job whose spot machine was taken away, and where its second start begins in what was followed."""
    run = harness.runs.interrupted.run
    starts = [number for number, line in enumerate(run.followed) if line.text.startswith("[start] job=")]
    assert len(starts) == 2
    return run, starts[1]


def test_azureml_preempted_job_goes_on_from_its_checkpoint(preempted, harness):
    run, _ = preempted
    assert run.end.state is State.SUCCEEDED
    [job] = harness.jobs(run.handle.job_name)  # the same job: nobody resumed it
    assert len(job.lives) == 2
    assert harness.runs.interrupted.resumed_from > 0
    assert harness.runs.interrupted.result["training"]["steps"] == harness.long_steps


def test_azureml_preempted_machines_hear_nothing(preempted):
    run, second = preempted
    before = run.followed[:second]
    assert last_step(before) > 0
    assert not any("stopped" in line.text for line in before)


def test_azureml_log_of_the_second_start_is_read_whole(preempted):
    """Its file has the name of the first one's: a reader must not take it for the rest of that."""
    run, _ = preempted
    followed, anew = ([line.text for line in lines] for lines in (run.followed, run.lines))
    assert followed[-len(anew) :] == anew
    assert sum(text.startswith("[start] job=") for text in anew) == 1
