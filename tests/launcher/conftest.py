"""The command in a home of its own, with a quick place (`plugin/scripted.py`) beside the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

PLUGIN = Path(__file__).with_name("plugin")
FTLAUNCH = str(Path(sys.executable).with_name("ftlaunch"))


@dataclass
class Command:
    """Runs ``ftlaunch`` as a process of its own."""

    folder: Path
    """Where it runs; ``runs/`` appears there."""
    environment: dict[str, str] = field(default_factory=dict)
    runner: list[str] = field(default_factory=list)
    """A program with its arguments that runs it, such as setpriv."""

    @property
    def home(self) -> Path:
        return Path(self.environment["FTLAUNCH_HOME"])

    def start(self, *arguments: str | Path, **more: Any) -> subprocess.Popen[str]:
        environment = self.environment | more.pop("environment", {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | more
        command = [*self.runner, FTLAUNCH, *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes)

    def __call__(self, *arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, environment=environment) as process:
            output, errors = process.communicate(timeout=120)
        done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
        assert "Traceback" not in errors, errors
        assert done.returncode == code, f"{done.returncode}\n{output}\n{errors}"
        return done

    def json(self, *arguments: str | Path, code: int = 0, **environment: str) -> Any:
        return json.loads(self(*arguments, "--json", code=code, **environment).stdout)


@pytest.fixture
def ftlaunch(tmp_path: Path) -> Command:
    folder = tmp_path / "here"
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FTLAUNCH", "SCRIPTED"))}
    environment = {**kept, "FTLAUNCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PLUGIN), "COLUMNS": "200"}
    return Command(folder, environment)


def write_job(folder: Path, **options: Any) -> Path:
    """A job for the quick place, whose data and base model are just files; ``options`` are `backends.scripted`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text("{}")
    top = options.pop("top", {})
    job = {
        "model": {"id": "base"},
        "data": {"train": "rows.jsonl"},
        "task": {"type": "classification"},
        "backend": "scripted",
        "backends": {"scripted": options},
    }
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job | top))
    return folder


@pytest.fixture
def job(ftlaunch: Command) -> Path:
    return write_job(ftlaunch.folder / "birds")


def starts(ftlaunch: Command) -> int:
    """How many jobs were started, asked past the store."""
    return len(list((ftlaunch.home / "local").glob("*/state.json")))


def wait_for(what, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")
