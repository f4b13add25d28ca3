"""SageMaker keeps every promise of a backend: real containers, the tiny model, a loopback account."""

import pytest

from backends.conformance import parameters
from tests.sagemaker.harness import SageMakerHarness


@pytest.mark.parametrize("promise", **parameters(SageMakerHarness))
def test_sagemaker_keeps(promise, harness):
    promise.check(harness)
