"""What is lost on the way to AWS and back while a job is submitted and followed, and what is left of it."""

from backends import sagemaker
from backends.conformance.jobs import Watch, prepare, start
from backends.interface import BackendError, State


def test_sagemaker_job_whose_answers_were_all_lost_keeps_its_secrets(harness, aws, monkeypatch):
    """It is there, and is adopted: it has to find what it is about to read."""
    create, before = sagemaker._create, len(aws.calls)

    def cut_off(*arguments):
        create(*arguments)
        raise BackendError("the connection broke off", hint="try again")

    monkeypatch.setattr(sagemaker, "_create", cut_off)
    watch = Watch(harness, start(harness, prepare(harness, "answerless", secret=True)))
    watch.to_end()
    assert watch.trail[-1].state is State.SUCCEEDED
    assert "DeleteSecret" not in {call.operation for call in aws.calls[before:]}


def test_sagemaker_running_log_that_is_followed_in_trouble_has_every_line_once(harness, aws):
    job = prepare(harness, "troubled", steps=harness.long_steps)
    watch = Watch(harness, start(harness, job))
    with aws.trouble(throttle=True):
        watch.to_step(harness.cut_step)
    with aws.trouble(drop=True):
        watch.to_end()
    assert watch.trail[-1].state is State.SUCCEEDED
    whole = list(harness.fresh().logs(watch.handle, None))
    assert [(line.source, line.text) for line in watch.followed] == [(line.source, line.text) for line in whole]
