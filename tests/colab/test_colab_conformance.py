"""Colab keeps every promise of a backend: Google's own tool, real machines with a Jupyter server, the tiny model."""

import pytest

from backends.conformance import parameters
from tests.colab.harness import ColabHarness


@pytest.mark.parametrize("promise", **parameters(ColabHarness))
def test_colab_keeps(promise, harness):
    promise.check(harness)
