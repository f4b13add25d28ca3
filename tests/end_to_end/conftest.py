"""The command as a stranger uses it: a process of its own, a home of its own, the tiny model, real training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_model import MODEL

Run = Callable[..., subprocess.CompletedProcess[str]]


def write_job(folder: Path, **sections: dict[str, Any]) -> Path:
    """Write a small job file into a folder of rows; sections are merged over sensible test settings."""
    job: dict[str, Any] = {
        "name": folder.name,
        "model": {"id": str(MODEL)},
        "data": {
            "train": "train.jsonl",
            "validation": "validation.jsonl",
            "test": "test.jsonl",
            "max_length": 96,
        },
        "task": {"type": "classification"},
        "train": {"epochs": 2.0, "rank": 8, "learning_rate": 0.003},
        "evaluate": {"enough": None, "forgetting": False, "resamples": 500},
    }
    for name, keys in sections.items():
        job[name] = {**job.get(name, {}), **keys}
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def ftlaunch(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command in a process of its own; standard output and error are kept."""
    home = tmp_path_factory.mktemp("home")

    def run(
        *arguments: str | Path, cwd: Path | None = None, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ftlaunch")), *map(str, arguments)],
            cwd=cwd or home,
            env={**os.environ, "FTLAUNCH_HOME": str(home / "ftlaunch"), "HF_HUB_OFFLINE": "1", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def run_job(ftlaunch: Run, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Run a job to its end; gives the fetched folder and result.json."""
    done = ftlaunch("run", folder, "--json", "--yes", "--output", folder / "out")
    output = Path(json.loads(done.stdout)["output"])
    return output, json.loads((output / "result.json").read_text())
