"""The sagemaker SDK as the sender: ModelTrainer's request is the plan's, and nobody is phoned."""

import json
import threading
import time

import pytest

from backends import sagemaker_sdk
from backends.conformance.jobs import prepare, secret_values
from backends.interface import BackendError, Resources, State
from backends.sagemaker import SageMaker
from tests.clouds.aws.account import POLICY, TRUST, policy_in_vpc
from tests.sagemaker.conftest import MACHINE
from tests.sagemaker.test_sagemaker_preflight import role


def with_options(job, resources=None, **options):
    update = {"options": job.submission.options | options, "resources": resources or job.submission.resources}
    return SageMaker.create().plan(job.submission.model_copy(update=update))


@pytest.fixture
def in_vpc(aws):
    """A role that may work in a VPC and with KMS keys, by the statements of the page."""
    with role(aws, policy_in_vpc(), TRUST) as arn:
        yield arn


@pytest.fixture
def own_role(aws, monkeypatch):
    """The role that this process acts as; SageMaker may assume it, and the account's other one too."""
    with role(aws, json.loads(POLICY.read_text()), TRUST, path="/team/") as arn:
        login = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]
        aws.rights.add_key_of_role(login["AccessKeyId"], arn)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", login["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", login["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", login["SessionToken"])
        yield arn


SPOT = {
    "max_wait_hours": 30.0,
    "subnets": ["subnet-0a"],
    "security_groups": ["sg-0a"],
    "kms_key": "alias/results",
    "volume_kms_key": "alias/disk",
    "encrypt_between_machines": True,
    "retries": 2,
    "tags": {"team": "nlp"},
}
ALONE = {"network_isolation": True, "keep_alive_seconds": 600}


@pytest.mark.parametrize(
    ("kind", "resources", "options"),
    [
        ("sdk-spot", Resources(machine=MACHINE, spot=True), SPOT),
        ("sdk-alone", Resources(machine=MACHINE, machines=2, disk_gb=99), ALONE),
    ],
)
def test_sagemaker_sdk_sends_the_plans_request(sdk, aws, harness, in_vpc, monkeypatch, kind, resources, options):
    monkeypatch.setattr(aws, "starting_seconds", 60.0)  # stopped before it has a machine
    job = prepare(harness, kind, max_seconds=3600, secret=kind == "sdk-spot")
    plan = with_options(job, resources, role=in_vpc, via="sdk", **options)
    backend = SageMaker.create()
    backend.stage(plan, job.files)
    handle = backend.submit(plan, secret_values(harness, job))
    try:
        sent = aws.training.jobs[plan.job_name].request
        wanted = plan.request["CreateTrainingJob"]
        assert sent == wanted | {"HyperParameters": {}}  # ModelTrainer always sends some, and there are none
        assert backend.submit(plan, secret_values(harness, job)) == handle
        assert SageMaker.create().find(plan.job_name) == handle
        assert len(harness.jobs(plan.job_name)) == 1
    finally:
        backend.cancel(handle)
        wait(backend, handle)
        backend.remove(handle)
    assert phoned(aws) == []


def test_sagemaker_sdk_finds_bucket_and_account(sdk, aws, harness):
    job = prepare(harness, "sdk-facts")
    plan = SageMaker.create().plan(job.submission.model_copy(update={"options": {"via": "sdk"}}))
    filled = SageMaker.create().resolve(plan)
    assert [each.path for each in filled.unresolved] == ["backends.sagemaker.role"]  # the caller is no role
    assert f"s3://sagemaker-{aws.region}-{aws.account}/" in filled.model_dump_json(by_alias=True)


@pytest.mark.parametrize("via", ["boto3", "sdk"])
def test_sagemaker_role_is_the_one_that_the_caller_acts_as(sdk, harness, own_role, via):
    job = prepare(harness, "own-role")
    plan = SageMaker.create().plan(job.submission.model_copy(update={"options": {"via": via}}))
    filled = SageMaker.create().resolve(plan)
    assert filled.unresolved == ()
    assert filled.request["CreateTrainingJob"]["RoleArn"] == own_role


def test_sagemaker_sdk_says_what_the_role_lacks(sdk, aws, harness):
    """The SDK looks at the role by itself, has exceptions of its own, and wants the rights in a VPC of every job's
    role; the preflight tells it before anything is sent."""
    plan = with_options(prepare(harness, "sdk-role"), via="sdk")
    [found] = [finding for finding in SageMaker.create().preflight(plan) if finding.code == "role"]
    assert (found.level, "ec2:CreateNetworkInterface" in found.message) == ("error", True)
    with pytest.raises(BackendError, match="ec2:CreateNetworkInterface") as refused:
        SageMaker.create().submit(plan, {})
    assert refused.value.hint
    assert harness.jobs(plan.job_name) == []


def test_sagemaker_sdk_would_phone_if_it_were_not_told_otherwise(sdk, aws, harness, in_vpc, monkeypatch):
    """Else the gateway's empty list would show nothing. A job that the service refuses is phoned home, too."""
    monkeypatch.setattr(sagemaker_sdk, "CONFIG", {"SchemaVersion": "1.0"})
    plan = with_options(prepare(harness, "sdk-phones"), role=in_vpc, via="sdk")
    with aws.trouble(refused="CreateTrainingJob"), pytest.raises(BackendError, match="refused by the test"):
        SageMaker.create().submit(plan, {})
    assert phoned(aws) == [f"sm-pysdk-t-{aws.region}.s3.{aws.region}.amazonaws.com"]
    aws.gateway.refused.clear()


def phoned(aws):
    """The hosts that were refused, once the SDK's telemetry has come to an end: it has threads of its own."""
    for thread in threading.enumerate():
        if thread.name == "sagemaker-telemetry":
            thread.join(30)
    return aws.gateway.refused


def wait(backend, handle):
    deadline = time.monotonic() + 60
    while not backend.status(handle).state.ended:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert backend.status(handle).state is State.CANCELLED
