"""What is lost on the way to AWS and back while a job is submitted and followed, and what is left of it."""

import pytest

from backends import sagemaker
from backends.conformance.jobs import Watch, prepare, start
from backends.interface import BackendError, State


@pytest.fixture(scope="module")
def troubled(harness, aws):
    """A job that was created although no answer ever told so, followed through throttled calls, then dropped ones."""
    create, before = sagemaker._create, len(aws.calls)

    def cut_off(*arguments):
        create(*arguments)
        raise BackendError("the connection broke off", hint="try again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sagemaker, "_create", cut_off)
        watch = Watch(harness, start(harness, prepare(harness, "troubled", steps=harness.long_steps, secret=True)))
    with aws.trouble(throttle=True):
        watch.to_step(harness.cut_step)
    with aws.trouble(drop=True):
        watch.to_end()
    return watch, {call.operation for call in aws.calls[before:]}


def test_sagemaker_job_whose_answers_were_all_lost_keeps_its_secrets(troubled):
    """It is there, and is adopted: it has to find what it is about to read."""
    watch, operations = troubled
    assert watch.trail[-1].state is State.SUCCEEDED
    assert "CreateTrainingJob" in operations
    assert "DeleteSecret" not in operations


def test_sagemaker_running_log_that_is_followed_in_trouble_has_every_line_once(troubled, harness):
    watch, _ = troubled
    whole = list(harness.fresh().logs(watch.handle, None))
    assert [(line.source, line.text) for line in watch.followed] == [(line.source, line.text) for line in whole]
