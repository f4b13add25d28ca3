"""The shipped role is what the backend does: no permission too few (each call is checked), and none too many."""

import pytest

from backends.interface import State
from backends.vertex import Vertex
from tests.clouds.google.project import JOB_ACCOUNT, USER, permissions


@pytest.fixture(scope="module")
def everything(harness, google):
    """All that the backend does: the suite's shared jobs, and what they leave out."""
    runs = harness.runs
    assert runs.output
    assert runs.resumed.run.end.state is State.SUCCEEDED
    backend = Vertex.create()
    backend.preflight(runs.finished.job.plan)
    assert list(backend.known())
    backend.remove(runs.cancelled.run.handle)
    backend.remove(runs.finished.handle)
    return google


def test_vertex_role_is_what_the_backend_does(everything):
    used = {permission for call in everything.calls if call.who == USER for permission in call.needed}
    used |= {permission for who, permission in everything.used if who == USER}
    assert used == permissions()


def test_vertex_jobs_account_calls_secret_manager_alone(everything):
    called = {call.url.partition("/")[0] for call in everything.calls if call.who == JOB_ACCOUNT}
    assert called == {"secretmanager.googleapis.com"}


def test_vertex_a_removed_job_leaves_neither_secrets_nor_checkpoints(everything, harness):
    name = harness.runs.finished.handle.job_name
    assert not [secret for secret in everything.secrets.values if name in secret]
    contents = everything.buckets.contents(f"{everything.project}-ftlaunch-{everything.region}")
    assert not [key for key in contents if f"/{name}/checkpoints/" in key]
    assert [key for key in contents if f"/{name}/model/" in key]
