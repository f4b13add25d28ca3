"""One loopback Colab for all of its tests, asked by Google's own tool: tests/services.sh installs it."""

import os

import pytest

from tests.clouds.fixtures import image, nothing_else_is_reached, services  # noqa: F401

MISSING = "needs Google's Colab tool (google-colab-cli): tests/services.sh installs it, where a Python 3.12 or newer is"


@pytest.fixture(scope="session")
def tool() -> str:
    """The path of the tool; skips without it, but for CI."""
    from tests.clouds.colab.account import TOOL

    if not TOOL.is_file():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    return str(TOOL)


@pytest.fixture(scope="session")
def machine(image, tool) -> str:
    """The image of the machines."""
    from tests.colab.machine_image import build

    return build(image)


@pytest.fixture(scope="package")
def colab(machine, tmp_path_factory):
    from tests.clouds.colab.account import logged_in, warm

    with logged_in(tmp_path_factory.mktemp("home"), machine) as cloud, warm():
        yield cloud


@pytest.fixture(scope="package")
def harness(colab, tmp_path_factory):
    from tests.colab.harness import ColabHarness

    with ColabHarness(tmp_path_factory.mktemp("colab"), colab) as made:
        yield made
