"""The loopback subscription runs what others than ftlaunch send too: a job of the SDK with a folder of code beside it.
ftlaunch's own code is in the image."""

import time

import pytest
from azure.ai.ml import MLClient, command
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential

from tests.clouds.azure.account import ROLE
from tests.clouds.azure.machine_room import CODE

WRITE_CODE = "Microsoft.MachineLearningServices/workspaces/codes/versions/*"


@pytest.fixture
def client(azure):
    """A scientist's, who may send code, which the shipped role need not allow."""
    told = azure.entra.add_application("scientist")
    azure.rights.assign_file("scientist", ROLE)
    azure.rights.actions("scientist").add(WRITE_CODE)
    credential = ClientSecretCredential(told["AZURE_TENANT_ID"], told["AZURE_CLIENT_ID"], told["AZURE_CLIENT_SECRET"])
    place = (azure.subscription, azure.group, azure.workspace)
    return MLClient(credential, *place, enable_telemetry=False, show_progress=False)


def test_azureml_loopback_runs_the_code_that_a_job_brings(azure, harness, image, client, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "hello.py").write_text("import os, inner.words\nprint(inner.words.TEXT, os.getcwd())\n")
    (tmp_path / "inner" / "words.py").write_text("TEXT = 'brought along'\n")
    environment = _environment(azure, harness)

    def submitted():
        return client.jobs.create_or_update(
            command(
                code=str(tmp_path),
                command="/opt/venv/bin/python hello.py",
                environment=environment,
                experiment_name="code",
                instance_type=harness.machine,
                instance_count=1,
            )
        )

    first = submitted()
    job = azure.jobs.jobs[first.name]
    deadline = time.monotonic() + 120
    while not job.ended:
        assert time.monotonic() < deadline, job.status
        time.sleep(0.1)
    assert (job.status, job.error) == ("Completed", None)
    assert b"".join(map(bytes, job.files.values())) == f"brought along {CODE}\n".encode()

    sent = azure.storage.received.value
    again = azure.jobs.jobs[submitted().name]
    assert again.body["codeId"] == job.body["codeId"]  # found by its hash
    assert azure.storage.received.value == sent
    again.cancel()


def test_azureml_loopback_refuses_code_that_was_never_sent(azure, harness, image, client):
    missing = f"{azure.scope}/codes/nothing/versions/1"
    with pytest.raises(HttpResponseError, match="No code nothing:1"):
        client.jobs.create_or_update(
            command(
                code=missing,
                command="true",
                environment=_environment(azure, harness),
                experiment_name="code",
                instance_type=harness.machine,
                instance_count=1,
            )
        )


def _environment(azure, harness) -> str:
    """One that ftlaunch made for a job of its own, with the image pushed."""
    assert harness.runs.finished.end
    name, version = next(iter(azure.arm.environments))
    return f"{azure.scope}/environments/{name}/versions/{version}"
