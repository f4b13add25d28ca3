"""Azure ML keeps every promise of a backend: real containers, the tiny model, a loopback subscription."""

import pytest

from backends.conformance import parameters
from tests.azureml.harness import AzureMLHarness


@pytest.mark.parametrize("promise", **parameters(AzureMLHarness))
def test_azureml_keeps(promise, harness):
    promise.check(harness)
