"""A custom job has no name of our choosing: what keeps a job from being started twice, and what becomes of a double."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.cloud.aiplatform_v1.types import JobState

from backends.conformance.jobs import Watch, prepare, start
from backends.google_calls import Account
from backends.interface import State
from backends.vertex import Vertex, _create
from tests.clouds.google.project import USER

COLAB_LIST = "aiplatform.notebookExecutionJobs.list"


@pytest.fixture(scope="module")
def doubled(harness, google):
    """A job whose create call was sent twice, as two launchers could that see neither's job nor claim."""
    job = prepare(harness, "double", steps=harness.long_steps)
    handle = start(harness, job)
    _create(Account(google.project, google.region), job.plan.request["customJob"])
    yield job, handle
    Vertex.create().cancel(handle)
    Watch(harness, handle).to_end()


def test_vertex_reconcile_finds_the_job_and_stops_its_double(doubled, harness, google, monkeypatch, tmp_path):
    job, handle = doubled
    first, second = harness.jobs(job.plan.job_name)
    assert Vertex.create().find(job.plan.job_name) == handle
    assert first.resource == handle.data["runs"][0]
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path))  # a new machine: nothing is recorded here
    command = [str(Path(sys.executable).with_name("ftlaunch")), "jobs", "--reconcile", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert f'"{job.plan.job_name}"' in done.stdout
    # Colab Enterprise was asked for its jobs too, by a user whose role is that of Vertex AI.
    assert google.denied == [(USER, COLAB_LIST)]
    google.denied.clear()
    google.calls[:] = [call for call in google.calls if COLAB_LIST not in call.needed]
    second.join(60)
    assert second.state is JobState.JOB_STATE_CANCELLED
    assert Vertex.create().status(handle).state in (State.STARTING, State.QUEUED, State.RUNNING)
    assert first.state not in (JobState.JOB_STATE_CANCELLED, JobState.JOB_STATE_CANCELLING)


def test_vertex_a_claim_whose_launcher_was_killed_is_taken_over(harness, google, monkeypatch):
    from backends import vertex
    from backends.google_storage import Store

    monkeypatch.setattr(vertex, "CLAIM_SECONDS", 1.0)
    monkeypatch.setattr(google, "starting_seconds", 60.0)  # cancelled before it has a machine
    job = prepare(harness, "claimed", steps=harness.long_steps)
    backend = Vertex.create()
    backend.stage(job.plan, job.files)
    place = job.plan.request["customJob"]["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"]
    assert Store(Account(google.project, google.region), place).create("claim")
    handle = backend.submit(job.plan, {})
    assert len(harness.jobs(job.plan.job_name)) == 1
    backend.cancel(handle)
    Watch(harness, handle).to_end()


def test_vertex_a_lost_answer_to_the_create_call_starts_nothing_twice(harness, google, monkeypatch):
    monkeypatch.setattr(google, "starting_seconds", 60.0)
    job = prepare(harness, "lost", steps=harness.long_steps)
    Vertex.create().stage(job.plan, job.files)
    with google.trouble(drop=True):
        handle = Vertex.create().submit(job.plan, {})
    backend = Vertex.create()
    assert [each.resource for each in harness.jobs(job.plan.job_name)] == handle.data["runs"]
    backend.cancel(handle)
    Watch(harness, handle).to_end()
