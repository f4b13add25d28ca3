"""The command in a home of its own, with a tiny job, and with backends beside the real ones whose plans are broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from tests.tiny_model import MODEL, tasks

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).with_name("plugin")
FTLAUNCH = str(Path(sys.executable).with_name("ftlaunch"))
LABEL = "ftlaunch.rehearsal"
NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in one process, where several run: the machine has not the memory for many trainings side by side."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("rehearse"))


class Rehearsal:
    """Runs ``ftlaunch rehearse`` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FTLAUNCH", "AWS_"))}
        self.environment = {**kept, "FTLAUNCH_HOME": str(folder / "home"), "PYTHONPATH": str(PLUGIN)}
        tasks.write_jsonl(folder / "train.jsonl", tasks.colours(48, seed=1))

    def job(self, **top: Any) -> Path:
        content = {
            "name": "tiny",
            "model": {"id": str(MODEL)},
            "data": {"train": "train.jsonl"},
            "task": {"type": "classification"},
            "evaluate": {"forgetting": False, "resamples": 200},
        }
        path = self.folder / "tiny.yaml"
        path.write_text(yaml.safe_dump(content | top))
        return path

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [FTLAUNCH, *map(str, arguments)], cwd=self.folder, env=self.environment | environment, **pipes
        )

    def __call__(self, job: Path, *arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
        with self.start("rehearse", job, "--json", *arguments, **environment) as process:
            output, errors = process.communicate(timeout=400)
        assert "Traceback" not in errors, errors
        assert process.returncode == code, f"{process.returncode}\n{output}\n{errors}"
        assert left(process.pid) == []
        return {**json.loads(output), "errors": errors}


def left(process: int) -> list[str]:
    """The containers and volumes on the engine that belong to that process."""
    if engine_missing():
        return []
    client = docker.from_env()
    owned = {"label": LABEL}
    found = [(each.name, each.labels) for each in client.containers.list(all=True, filters=owned, ignore_removed=True)]
    found += [(each.name, each.attrs["Labels"]) for each in client.volumes.list(filters=owned)]
    client.close()
    return [name for name, labels in found if labels[LABEL].endswith(f":{process}")]


def engine_missing() -> str | None:
    """What is missing to run containers; None if nothing is."""
    if not shutil.which("docker"):
        return "needs a Docker engine: tests/services.sh start"
    answer = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, check=False)
    return None if answer.returncode == 0 else "no Docker engine answers: tests/services.sh start"


@pytest.fixture
def rehearse(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path)


@pytest.fixture(scope="session")
def engine() -> None:
    """A real engine with the CPU image, built if this content was not; without one the tests skip, but never in CI."""
    missing = engine_missing()
    if missing and not os.environ.get("CI"):
        pytest.skip(missing)
    assert missing is None, missing
    from launcher.image import Image, build, own_wheels

    build(Image("cpu"), own_wheels())
