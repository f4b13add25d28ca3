"""Vertex AI keeps every promise of a backend: real containers, the tiny model, a loopback project."""

import pytest

from backends.conformance import parameters
from tests.vertex.harness import VertexHarness


@pytest.mark.parametrize("promise", **parameters(VertexHarness))
def test_vertex_keeps(promise, harness):
    promise.check(harness)
