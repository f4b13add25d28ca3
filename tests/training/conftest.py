"""A small job for the trainer's entrypoint, run as the container runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import MODEL, tasks


@dataclass
class Entry:
    """One job's folders."""

    folder: Path

    def write(self, **train: Any) -> None:
        tasks.write(self.folder / "data", "colours", train=48, validation=12, test=24)
        spec = {
            "schema": 1,
            "job": "small-00000000",
            "model": {"id": str(MODEL)},
            "data": {f: f"{f}.jsonl" for f in ("train", "validation", "test")} | {"max_length": 96},
            "task": {"type": "classification"},
            "train": {"epochs": 2.0, "rank": 4, "learning_rate": 0.003, "patience": 0} | train,
            "evaluate": {"enough": None, "forgetting": False, "resamples": 200},
        }
        (self.folder / "spec.json").write_text(json.dumps(spec))

    def start(
        self,
        *more: str,
        output: Path | None = None,
        launcher: tuple[str, ...] = (),
        module: str = "training_image",
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        places = {"spec": "spec.json", "data": "data", "output": "output", "checkpoints": "checkpoints"}
        argv = [part for name, path in places.items() for part in (f"--{name}", str(self.folder / path))]
        if output is not None:
            argv[argv.index("--output") + 1] = str(output)
        return subprocess.Popen(
            [sys.executable, "-m", *launcher, module, "train", *argv, *more],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until_step(self, step: int) -> None:
        """Wait for a line of metrics.jsonl."""
        path = self.folder / "output" / "metrics.jsonl"
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            if path.exists() and f'"step": {step},' in path.read_text():
                return
            time.sleep(0.02)
        raise AssertionError(f"step {step} was never reached")

    def run(self, *more: str, code: int = 0, **given: Any) -> str:
        """Start and wait; gives what it printed."""
        process = self.start(*more, **given)
        text, _ = process.communicate(timeout=400)
        assert process.returncode == code, text
        assert "Traceback" not in text, text
        return text

    @property
    def result(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "output" / "result.json").read_text())
        return told

    def losses(self) -> dict[int, float]:
        lines = [json.loads(line) for line in (self.folder / "output" / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if "train/loss" in line]
        assert len(steps) == len(set(steps)), "a step stands there twice"
        return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return Entry(tmp_path)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """The small job, run without any trouble."""
    made = Entry(tmp_path_factory.mktemp("straight"))
    made.write()
    made.run()
    return made
