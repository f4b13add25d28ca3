"""One loopback project for all tests of Vertex AI: the shipped role is in force, and no other host is reached."""

import pytest

from tests.clouds.fixtures import image, nothing_else_is_reached, services  # noqa: F401

MACHINE = "n1-standard-4"


@pytest.fixture(scope="package")
def google(services, tmp_path_factory):
    from tests.clouds.google.project import logged_in

    with logged_in(tmp_path_factory.mktemp("home")) as cloud:
        yield cloud


@pytest.fixture(scope="package")
def harness(google, image, tmp_path_factory):
    from tests.vertex.harness import VertexHarness

    with VertexHarness(tmp_path_factory.mktemp("vertex"), google, image) as made:
        yield made
