"""Jobs are looked for wherever they were submitted from here, not only where the credentials lead by themselves."""

import json

import pytest
from google.cloud.aiplatform_v1.types import CustomJob, JobState, NotebookExecutionJob

from backends.colab_enterprise import ColabEnterprise
from backends.google_request import JOB_LABEL
from backends.interface import BackendError
from backends.vertex import Vertex
from backends.vertex_request import RUN_LABEL
from tests.clouds.google.custom_jobs import Job
from tests.clouds.google.notebooks import Execution
from tests.clouds.google.project import USER, permissions

NAME = "birds-0123abcd"


@pytest.fixture
def lost(google, monkeypatch):
    """An ended job and an ended execution that no record names."""
    labels = {JOB_LABEL: NAME, RUN_LABEL: "0"}
    image = f"{google.region}-docker.pkg.dev/{google.project}/ftlaunch/ftlaunch:gone"
    spec = {"worker_pool_specs": [{"container_spec": {"image_uri": image}}]}
    job = CustomJob(display_name=NAME, labels=labels, job_spec=spec)
    execution = NotebookExecutionJob(display_name=NAME, labels=labels, gcs_output_uri="gs://b/ftlaunch/jobs/j/executed")
    for there, kind, request in ((google.custom_jobs, Job, job), (google.notebooks, Execution, execution)):
        resource = f"{there.parent}/{NAME}"
        made = kind(google, request, resource, b"{}")
        made.state = JobState.JOB_STATE_SUCCEEDED
        monkeypatch.setitem(there.jobs, resource, made)
    monkeypatch.setattr(google, "calls", [])  # those made here are not the ones that the role's tests ask for
    allowed = permissions() | {"aiplatform.notebookExecutionJobs.list"}
    monkeypatch.setitem(google.accounts.permissions, USER, allowed)


@pytest.mark.parametrize("kind", [Vertex, ColabEnterprise])
def test_vertex_jobs_in_a_project_that_was_submitted_to_are_known(lost, google, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "another-project")
    (tmp_path / kind.name).mkdir()
    (tmp_path / kind.name / "half.json").write_text("")
    (tmp_path / kind.name / "earlier.json").write_text(json.dumps({"project": google.project, "region": google.region}))
    found = []
    with pytest.raises(BackendError, match="another-project"):  # is asked, knows nothing, and stops nobody
        found.extend((handle.job_name, handle.data["project"]) for handle in kind.create().known())
    assert (NAME, google.project) in found
