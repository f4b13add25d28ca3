"""The sagemaker SDK as the sender: ModelTrainer's request is the plan's, and nobody is phoned."""

import time

import pytest

from backends.conformance.jobs import prepare
from backends.interface import State
from backends.sagemaker import SageMaker


@pytest.fixture(scope="module")
def sdk():
    pytest.importorskip("sagemaker.train", reason="pip install 'ftlaunch[sagemaker]'")


def with_options(job, **options):
    made = job.submission.model_copy(update={"options": job.submission.options | options})
    return SageMaker.create().plan(made)


def test_sagemaker_sdk_sends_the_plans_request(sdk, aws, harness):
    job = prepare(harness, "sdk", steps=harness.long_steps)
    plan = with_options(job, via="sdk", tags={"team": "nlp"})
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


def wait(backend, handle):
    deadline = time.monotonic() + 60
    while not backend.status(handle).state.ended:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert backend.status(handle).state is State.CANCELLED
