"""Command and training die by SIGKILL; the job is found again, goes on, and ends as it would have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Run, ftlaunch, write_job  # noqa: F401
from tests.tiny_model import tasks


def losses(output: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def told(ftlaunch: Run, job: Path, **more: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ftlaunch("run", job, "--json", **more).stdout)
    return document


def test_launcher_and_training_are_killed_and_the_job_ends_as_it_would(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "killed", "colours", train=60, validation=15, test=30)
    job = write_job(folder, train={"epochs": 6.0, "checkpoint_steps": 2, "patience": 0})
    straight = Path(told(ftlaunch, job)["output"])

    home = tmp_path / "home"
    command = [str(Path(sys.executable).with_name("ftlaunch")), "run", str(job)]
    environment = {**os.environ, "FTLAUNCH_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet) as launcher:
        (place,) = until(lambda: list((home / "local").glob("*/state.json")))
        until(lambda: list(place.parent.glob("checkpoints/step-*.pt")))
        launcher.kill()
    training = json.loads(place.read_text())["training_pid"]
    os.kill(training, signal.SIGKILL)

    again = told(ftlaunch, job, FTLAUNCH_HOME=str(home))
    assert (again["job"], again["state"]) == (place.parent.name, "SUCCEEDED")
    output = Path(again["output"])
    assert json.loads((output / "result.json").read_text())["training"]["resumed_from"] >= 2
    assert losses(output) == pytest.approx(losses(straight), abs=1e-4)


def until(look: Any, seconds: float = 200.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")
