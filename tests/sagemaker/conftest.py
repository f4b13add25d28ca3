"""One loopback account for all tests of SageMaker: the shipped policies are in force, and no other host is reached."""

import functools
import importlib.util
import os

import pytest
from botocore.loaders import JSONFileLoader

from tests.clouds.fixtures import image, nothing_else_is_reached, services  # noqa: F401

MACHINE = "ml.m5.xlarge"


@pytest.fixture(scope="package", autouse=True)
def models_read_once():
    """The suite makes a backend afresh for every look; botocore would parse its megabytes of JSON each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", staticmethod(functools.cache(JSONFileLoader().load_file)))
        yield


@pytest.fixture(scope="package")
def aws(services, tmp_path_factory):
    from tests.clouds.aws.account import logged_in

    with logged_in(tmp_path_factory.mktemp("home")) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def sdk():
    """The sagemaker SDK; in CI its absence fails."""
    if not os.environ.get("CI") and importlib.util.find_spec("sagemaker") is None:
        pytest.skip("needs the SDK: make install, or pip install 'ftlaunch[sagemaker]'")


@pytest.fixture(scope="package")
def harness(aws, image, tmp_path_factory):
    from tests.sagemaker.harness import SageMakerHarness

    with SageMakerHarness(tmp_path_factory.mktemp("sagemaker"), aws, image) as made:
        yield made
