"""What each cloud's tests start with: the services that tests/services.sh starts, and the real training image."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[1] / "services.sh"


@pytest.fixture(scope="session")
def services():
    """Skips where nothing can run containers and be reached by a cloud's names; never in CI."""
    missing = _missing()
    if missing and not os.environ.get("CI"):
        pytest.skip(missing)
    assert missing is None, missing


@pytest.fixture(autouse=True)
def nothing_else_is_reached(request):
    """Each test fails that reaches for a host outside of its cloud, or makes a call that the shipped rights do not
    allow."""
    yield
    for name in {"aws", "azure", "colab", "google"}.intersection(request.fixturenames):
        cloud = request.getfixturevalue(name)
        assert cloud.gateway.refused == []
        assert cloud.denied == []


def _missing() -> str | None:
    if os.geteuid() != 0 or not (shutil.which("docker") or Path("/usr/bin/docker").exists()):
        return "needs root, a Docker engine and a registry: tests/services.sh installs and starts them"
    answer = subprocess.run(["bash", str(SERVICES), "status"], capture_output=True, check=False)
    return None if answer.returncode == 0 else "no engine or no registry answers: tests/services.sh starts them"


@pytest.fixture(scope="session")
def image(services) -> str:
    """The name of the image for machines without a GPU, built if this content was not."""
    from launcher.image import Image, build, own_wheels

    return build(Image("cpu"), own_wheels())[0]
