"""A real engine and registry, and the real training image: tests/services.sh starts and makes what is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.launcher.conftest import ftlaunch  # noqa: F401 - a fixture
from tests.tiny_model import MODEL, tasks

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "tests" / "services.sh"
REGISTRY = os.environ.get("FTLAUNCH_TEST_REGISTRY", "127.0.0.1:5000")


def pytest_collection_modifyitems(items):
    """All in one process, where several run: they share the engine's memory and the machine's cores."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("docker"))


def missing() -> str | None:
    """Why there is no engine with a registry and a base image; None if there is."""
    if not shutil.which("docker") and not Path("/usr/bin/docker").exists():
        return "needs a Docker engine and a registry: tests/services.sh, as root"
    done = subprocess.run(["bash", str(SERVICES), "status"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"{done.stderr.strip()}; tests/services.sh, as root, starts them"


@pytest.fixture(scope="session")
def docker_client():
    """The engine, asked past the backend."""
    why = missing()
    if why and not os.environ.get("CI"):
        pytest.skip(why)
    assert why is None, why
    import docker

    client = docker.from_env(timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(docker_client) -> str:
    """The real training image, built if this content was not."""
    from launcher.image import Image, build

    return build(Image("cpu"), quiet=True)[0]


def write_job(folder: Path, **top: object) -> Path:
    """A job of the tiny model that trains in seconds; keys of the job file beside its own."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks.write_jsonl(folder / "train.jsonl", tasks.colours(60, seed=1))
    job: dict[str, object] = {
        "model": {"id": str(MODEL)},
        "data": {"train": "train.jsonl", "max_length": 64},
        "task": {"type": "classification"},
        "train": {"rank": 2, "batch_size": 2, "max_steps": 6, "epochs": 1.0, "patience": 0},
        "evaluate": {"shots": 3, "resamples": 200, "forgetting": False},
        "backend": "docker",
    }
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job | top))
    return folder
