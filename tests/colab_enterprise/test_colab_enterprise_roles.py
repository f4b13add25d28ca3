"""The shipped role is what the backend does: no permission too few (each call is checked), and none too many."""

import pytest
from google.cloud.aiplatform_v1.types import NotebookRuntimeTemplate

from backends.colab_enterprise import ColabEnterprise
from backends.conformance.jobs import prepare, start
from tests.clouds.google.project import NOTEBOOK_ACCOUNT, OBJECT_USER, USER, permissions
from tests.colab_enterprise.test_colab_enterprise_request import submission


@pytest.fixture(scope="module")
def everything(harness, google):
    """All that the backend does: the suite's shared jobs, and what they leave out."""
    runs, backend = harness.runs, ColabEnterprise.create()
    assert runs.output
    backend.preflight(runs.finished.job.plan)
    name = f"{google.notebooks.parent}/notebookRuntimeTemplates/77"
    google.notebooks.templates[name] = NotebookRuntimeTemplate(name=name, display_name="mine")
    options = {"project": google.project, "service_account": NOTEBOOK_ACCOUNT, "runtime_template": "77"}
    backend.preflight(backend.plan(submission(options)))
    assert list(backend.known())
    google.starting_seconds, before = 60.0, google.starting_seconds
    job = prepare(harness, "waiting")
    backend.cancel(start(harness, job))  # before it has a machine
    google.starting_seconds = before
    harness.jobs(job.plan.job_name)[0].join(10)
    backend.remove(runs.finished.handle)
    return google


def test_colab_enterprise_role_is_what_the_backend_does(everything):
    used = {permission for call in everything.calls if call.who == USER for permission in call.needed}
    assert used == permissions("colab-enterprise")


def test_colab_enterprise_notebooks_account_uses_its_bucket_and_its_secrets(everything):
    calls = [call for call in everything.calls if call.who == NOTEBOOK_ACCOUNT]
    assert {call.url.partition("/")[0] for call in calls} == {"storage.googleapis.com", "secretmanager.googleapis.com"}
    assert {permission for call in calls for permission in call.needed} <= OBJECT_USER


def test_colab_enterprise_a_removed_job_leaves_no_secrets(everything, harness):
    name = harness.runs.finished.handle.job_name
    assert not [secret for secret in everything.secrets.values if name in secret]
    contents = everything.buckets.contents(f"{everything.project}-ftlaunch-{everything.region}")
    assert [key for key in contents if f"/{name}/output/" in key]
