"""SageMaker keeps every promise of a backend: real containers, the tiny model, a loopback account."""

import pytest

from backends.conformance import parameters
from tests.sagemaker.harness import SageMakerHarness


@pytest.mark.parametrize("promise", **parameters(SageMakerHarness))
def test_sagemaker_keeps(promise, harness):
    promise.check(harness)


def test_sagemaker_bill_is_of_all_lives(harness):
    """No promise of every backend: some are told no bill."""
    resumed = harness.runs.resumed
    first, second = (job.description()["BillableTimeInSeconds"] for job in harness.jobs(resumed.run.handle.job_name))
    assert (resumed.broken.end.billable_seconds, resumed.run.end.billable_seconds) == (first, first + second)
