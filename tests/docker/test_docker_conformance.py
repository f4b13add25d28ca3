"""The docker place keeps its promises, with real training of the tiny model in the real image."""

import pytest

from backends.conformance import parameters
from tests.docker.harness import DockerHarness


@pytest.fixture(scope="module")
def harness(tmp_path_factory, docker_client, image):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLAUNCH_HOME", str(tmp_path_factory.mktemp("home")))
        with DockerHarness(tmp_path_factory.mktemp("docker"), docker_client, image) as harness:
            yield harness


@pytest.mark.parametrize("promise", **parameters(DockerHarness))
def test_keeps(promise, harness):
    promise.check(harness)
