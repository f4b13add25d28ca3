"""A stop is the notebook's own doing, at any moment, whatever the service makes of it; and what a dead one leaves."""

import json

import pytest
from google.cloud.aiplatform_v1.types import JobState

from backends.colab_enterprise import ColabEnterprise
from backends.conformance.jobs import Watch, prepare, start
from backends.interface import Reason, Resources, State


@pytest.fixture
def uncancellable(google):
    """The service has no way to cancel an execution."""
    google.notebooks.cancellable = False
    yield
    google.notebooks.cancellable = True


def test_colab_enterprise_a_stop_before_the_machine_ends_the_notebook_at_its_start(harness, uncancellable):
    job = prepare(harness, "early", steps=harness.long_steps)
    handle = start(harness, job)
    ColabEnterprise.create().cancel(handle)
    run = Watch(harness, handle).finish(job)
    [execution] = harness.jobs(handle.job_name)
    assert execution.state is JobState.JOB_STATE_FAILED  # as the service sees it
    assert (run.end.state, run.end.reason) == (State.CANCELLED, Reason.USER)
    assert not [line for line in run.lines if line.text.startswith("[start]")]


def test_colab_enterprise_a_dead_runtime_leaves_its_log(harness):
    job = prepare(harness, "dead", steps=harness.long_steps)
    watch = Watch(harness, start(harness, job))
    watch.to_step(harness.cut_step)
    harness.jobs(watch.handle.job_name)[0].kill()
    run = watch.finish(job)
    assert run.end.state is State.FAILED
    assert run.end.reason not in (None, Reason.USER, Reason.BAD_DATA)
    assert "not reachable" in run.end.message
    assert run.lines


def test_colab_enterprise_a_lost_answer_to_the_create_call_starts_nothing_twice(harness, google, monkeypatch):
    monkeypatch.setattr(google, "starting_seconds", 60.0)  # cancelled before it has a machine
    job = prepare(harness, "lost", steps=harness.long_steps)
    backend = ColabEnterprise.create()
    backend.stage(job.plan, job.files)
    with google.trouble(drop=True):
        handle = ColabEnterprise.create().submit(job.plan, {})
    assert [each.resource for each in harness.jobs(job.plan.job_name)] == [handle.data["name"]]
    backend.cancel(handle)
    Watch(harness, handle).to_end()


def test_colab_enterprise_a_cancelled_job_brings_notebook_and_log(harness):
    run = harness.runs.cancelled.run
    folder = harness.runs.fetch(run.handle, "cancelled-notebook")
    notebook = json.loads((folder / "notebook.ipynb").read_text())
    shown = "".join("".join(output.get("text", "")) for cell in notebook["cells"] for output in cell.get("outputs", []))
    assert "[train]" in shown
    assert [line.text for line in run.lines if line.text.startswith("[train]")]


def test_colab_enterprise_a_runtime_without_the_gpu_asked_for_ends_at_once(harness, google):
    """Else the training would run for hours on a processor; the loopback's runtimes have no GPU."""
    names = [f"compute.googleapis.com/{name}" for name in ("nvidia_t4_gpus", "gpus_all_regions")]
    google.services.limits |= dict.fromkeys(names, 1)
    try:
        job = prepare(harness, "gpu")
        submission = job.submission.model_copy(update={"resources": Resources(gpu="T4")})
        job = type(job)(submission, ColabEnterprise.create().plan(submission), job.files)
        run = Watch(harness, start(harness, job)).finish(job)
    finally:
        google.services.limits.clear()
    assert run.end.state is State.FAILED
    assert "no GPU" in run.end.message
