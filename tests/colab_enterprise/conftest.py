"""One loopback project for all tests of Colab Enterprise: the shipped role is in force, no other host is reached."""

import pytest

from tests.clouds.fixtures import image, nothing_else_is_reached, services  # noqa: F401

MACHINE = "e2-standard-4"


@pytest.fixture(scope="package")
def runtime(image):
    """The image of the runtimes; made before the project closes the way to the package index."""
    from tests.clouds.google.runtime import build

    return build(image)


@pytest.fixture(scope="package")
def google(services, runtime, tmp_path_factory):
    from tests.clouds.google.project import logged_in

    with logged_in(tmp_path_factory.mktemp("home"), "colab-enterprise") as cloud:
        cloud.runtime_image = runtime
        yield cloud


@pytest.fixture(scope="package")
def harness(google, tmp_path_factory):
    from tests.colab_enterprise.harness import ColabEnterpriseHarness

    with ColabEnterpriseHarness(tmp_path_factory.mktemp("colab-enterprise"), google) as made:
        yield made
