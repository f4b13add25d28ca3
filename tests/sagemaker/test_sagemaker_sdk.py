"""The sagemaker SDK as the sender: ModelTrainer's request is the plan's, and nobody is phoned."""

import time

import pytest

from backends.conformance.jobs import prepare
from backends.interface import BackendError, State
from backends.sagemaker import SageMaker
from tests.clouds.aws.account import TRUST, policy_in_vpc
from tests.sagemaker.test_sagemaker_preflight import role


def with_options(job, **options):
    made = job.submission.model_copy(update={"options": job.submission.options | options})
    return SageMaker.create().plan(made)


@pytest.fixture
def in_vpc(aws):
    """A role that may work in a VPC and with KMS keys, by the statements of the page."""
    with role(aws, policy_in_vpc(), TRUST) as arn:
        yield arn


def test_sagemaker_sdk_sends_the_plans_request(sdk, aws, harness, in_vpc):
    job = prepare(harness, "sdk", steps=harness.long_steps)
    plan = with_options(
        job,
        role=in_vpc,
        via="sdk",
        tags={"team": "nlp"},
        subnets=["subnet-0a"],
        security_groups=["sg-0a"],
        kms_key="alias/results",
        volume_kms_key="alias/disk",
        encrypt_between_machines=True,
        retries=2,
    )
    backend = SageMaker.create()
    backend.stage(plan, job.files)
    handle = backend.submit(plan, {})
    try:
        sent = aws.training.jobs[plan.job_name].request
        wanted = plan.request["CreateTrainingJob"]
        assert {key: value for key, value in sent.items() if value != {}} == wanted
        assert backend.submit(plan, {}) == handle
        assert SageMaker.create().find(plan.job_name) == handle
        assert len(harness.jobs(plan.job_name)) == 1
    finally:
        backend.cancel(handle)
        wait(backend, handle)
    assert aws.gateway.refused == []


def test_sagemaker_sdk_finds_bucket_and_account(sdk, aws, harness):
    job = prepare(harness, "sdk-facts")
    plan = SageMaker.create().plan(job.submission.model_copy(update={"options": {"via": "sdk"}}))
    filled = SageMaker.create().resolve(plan)
    assert [each.path for each in filled.unresolved] == ["backends.sagemaker.role"]  # the caller is no role
    assert f"s3://sagemaker-{aws.region}-{aws.account}/" in filled.model_dump_json(by_alias=True)


def test_sagemaker_sdk_says_what_the_role_lacks(sdk, aws, harness):
    """The SDK looks at the role by itself, and has exceptions of its own."""
    job = prepare(harness, "sdk-role")
    plan = with_options(job, via="sdk", subnets=["subnet-0a"], security_groups=["sg-0a"])
    with pytest.raises(BackendError, match="ec2:CreateNetworkInterface") as refused:
        SageMaker.create().submit(plan, {})
    assert refused.value.hint
    assert harness.jobs(plan.job_name) == []


def wait(backend, handle):
    deadline = time.monotonic() + 60
    while not backend.status(handle).state.ended:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert backend.status(handle).state is State.CANCELLED
