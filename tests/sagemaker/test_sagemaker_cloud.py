"""The loopback account is as strict as the service; what it let through would make the other tests blind."""

import copy
import json
import ssl
import time
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError

from backends.conformance.jobs import Watch, prepare, start
from backends.interface import Reason, State
from training_image.contracts import SAGEMAKER


@pytest.fixture(scope="module")
def taken(aws, harness):
    """A request that was taken, and a client that the caller's own SDK makes."""
    assert harness.runs.finished.end.state is State.SUCCEEDED
    request = harness.runs.finished.job.plan.request["CreateTrainingJob"]
    return boto3.client("sagemaker", region_name=aws.region), request


def changed(request, path, value):
    made = copy.deepcopy(request) | {"TrainingJobName": f"other-{time.time_ns()}"}
    place = made
    *way, last = path.split(".")
    for key in way:
        place = place[key]
    place[last] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("TrainingJobName", "under_score", "ValidationException"),
        ("TrainingJobName", "n" * 64, "ValidationException"),
        ("ResourceConfig.InstanceType", "ml.none.huge", "ValidationException"),
        ("ResourceConfig.InstanceType", "ml.p5.48xlarge", "ResourceLimitExceeded"),
        ("RoleArn", "arn:aws:iam::123456789012:role/nobody", "ValidationException"),
        ("Environment", {"NAME": "v" * 513}, "ValidationException"),
        ("StoppingCondition", {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}, "ValidationException"),
        ("StoppingCondition", {"MaxRuntimeInSeconds": 60}, "ValidationException"),
        ("AlgorithmSpecification.TrainingImage", "{host}/ftlaunch:never-pushed", "ValidationException"),
        ("AlgorithmSpecification.TrainingImage", "{host}/ftlaunch@sha256:" + "0" * 64, "ValidationException"),
    ],
)
def test_sagemaker_cloud_refuses(taken, aws, path, value, code):
    client, request = taken
    value = value.format(host=aws.front.host) if isinstance(value, str) else value
    with pytest.raises(ClientError) as refused:
        client.create_training_job(**changed(request, path, value))
    assert refused.value.response["Error"]["Code"] == code


def test_sagemaker_cloud_refuses_a_name_that_was_used(taken):
    client, request = taken
    with pytest.raises(ClientError, match="ResourceInUse"):
        client.create_training_job(**request)


def test_sagemaker_cloud_notes_every_host_outside_of_it(aws):
    context = ssl.create_default_context(cafile=str(aws.authority.file))
    with pytest.raises(urllib.error.URLError, match="403"):
        urllib.request.urlopen("https://telemetry.example.com/", context=context)
    assert aws.gateway.refused == ["telemetry.example.com"]
    aws.gateway.refused.clear()


def test_sagemaker_cloud_has_the_results_only_from_the_container(taken, harness, aws):
    """The archive that is fetched was written by the container: its manifest is that of the job that ran there."""
    job = harness.jobs(harness.runs.finished.handle.job_name)[0]
    result = json.loads((harness.runs.output / "result.json").read_text())
    assert result["job"] == job.name
    assert result["platform"]["name"] == "sagemaker"
    assert job.image_ids == {aws.engine.images.get(harness.image).id}


def test_sagemaker_cloud_has_the_services_grace(aws):
    """The 120 s of the service's documentation, in the contract that rehearsal and loopback account read alike."""
    assert aws.grace_seconds == SAGEMAKER.grace_seconds == 120


@pytest.mark.parametrize(
    ("limit", "end"),
    [
        (None, (State.CANCELLED, Reason.USER, "Stopped")),
        (3, (State.FAILED, Reason.TIMED_OUT, "Stopped: MaxRuntimeExceeded")),
    ],
    ids=["cancelled", "limited"],
)
def test_sagemaker_job_that_hears_no_signal_is_killed_after_the_grace(harness, aws, limit, end):
    """SIGKILL comes when the grace is over, and the job ends as what it was stopped for: no container that minds its
    limit by itself would show that the service does."""
    job = prepare(harness, f"deaf-{limit}", max_seconds=limit)
    with aws.shortened_grace(1.0):
        watch = Watch(harness, start(harness, job))
        while watch.look().state is not State.RUNNING:
            time.sleep(0.1)
        [machine] = harness.last(watch.handle).lives[-1]
        machine.signal("SIGSTOP")
        began = time.monotonic()
        if limit is None:
            harness.fresh().cancel(watch.handle)
        run = watch.finish(job, 60)
    assert (run.end.state, run.end.reason, run.end.native_state) == end
    assert run.lines == []
    assert time.monotonic() - began < 20
