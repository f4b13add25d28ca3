"""Colab Enterprise keeps every promise of a backend: real notebooks, the tiny model, a loopback project."""

import pytest

from backends.conformance import parameters
from tests.colab_enterprise.harness import ColabEnterpriseHarness


@pytest.mark.parametrize("promise", **parameters(ColabEnterpriseHarness))
def test_colab_enterprise_keeps(promise, harness):
    promise.check(harness)
