"""Where there is no network, each cloud's backend says so soon, and does not blame the login for it."""

import importlib
import json
import time

import pytest

from backends import registry
from backends.interface import BackendError, Handle, Reason

REFUSING = "http://127.0.0.1:9"
"""A proxy that takes no connection."""
AWS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
AZURE = {
    "AZURE_TENANT_ID": "72f988bf-0000-4000-8000-2d7cd011db47",
    "AZURE_CLIENT_ID": "33333333-0000-4000-8000-333333333333",
    "AZURE_CLIENT_SECRET": "any",
}
GOOGLE = {"type": "authorized_user", "client_id": "any", "client_secret": "any", "refresh_token": "any"}
PLACE = "projects/loopback-project/locations/us-central1"
SDKS = {"sagemaker": "boto3", "azureml": "azure.ai.ml"}
JOBS = {
    "sagemaker": {"region": "us-east-1", "profile": None, "runs": ["a-1"]},
    "azureml": {"subscription": "s", "resource_group": "g", "workspace": "w", "runs": ["a-1"]},
    "vertex": {"project": "loopback-project", "region": "us-central1", "runs": [f"{PLACE}/customJobs/1"]},
    "colab-enterprise": {
        "project": "loopback-project",
        "region": "us-central1",
        "name": f"{PLACE}/notebookExecutionJobs/a-1",
        "place": "gs://any/a-1",
    },
}


@pytest.mark.parametrize("name", JOBS)
def test_without_a_network_status_says_so_soon(name, monkeypatch, tmp_path):
    login = tmp_path / "login.json"
    login.write_text(json.dumps(GOOGLE))
    told = AWS | AZURE | {"GOOGLE_APPLICATION_CREDENTIALS": str(login), "NO_GCE_CHECK": "true"}
    for variable, value in (told | {"HTTPS_PROXY": REFUSING, "https_proxy": REFUSING}).items():
        monkeypatch.setenv(variable, value)
    importlib.import_module(SDKS.get(name, "google.cloud.aiplatform_v1"))
    backend = registry.load(name).create()
    began = time.monotonic()
    with pytest.raises(BackendError, match="cannot be reached") as error:
        backend.status(Handle(backend=name, job_name="a-1", data=JOBS[name]))
    assert "HTTPS_PROXY" in error.value.hint
    assert error.value.reason is not Reason.CREDENTIALS
    assert time.monotonic() - began < 15
