"""One loopback subscription for all tests of Azure ML: the shipped role is in force, and no other host is reached."""

import pytest

from tests.clouds.fixtures import image, nothing_else_is_reached, services  # noqa: F401


@pytest.fixture(scope="package")
def azure(services, tmp_path_factory):
    from tests.clouds.azure.account import logged_in

    with logged_in(tmp_path_factory.mktemp("home")) as cloud:
        yield cloud


@pytest.fixture(scope="package")
def harness(azure, image, tmp_path_factory):
    from tests.azureml.harness import AzureMLHarness

    with AzureMLHarness(tmp_path_factory.mktemp("azureml"), azure, image) as made:
        yield made
