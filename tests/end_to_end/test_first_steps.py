"""A short run's first steps tell the cost comparison how fast this machine is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Run, write_job
from tests.tiny_model import tasks


def test_the_first_steps_of_a_short_run_calibrate_the_estimate(ftlaunch: Run, tmp_path: Path) -> None:
    folder = write_job(tasks.write(tmp_path / "colours", "colours", train=180, validation=20, test=20))
    home = {"FTLAUNCH_HOME": str(tmp_path / "home")}

    def here() -> dict[str, Any]:
        return dict(json.loads(ftlaunch("cost", folder, "--backend", "local", "--json", **home).stdout)["offers"][0])

    before = here()
    assert "own run" not in before["rests_on"]
    short = ("--set", "train.max_steps=4", "--output", tmp_path / "out")
    done = json.loads(ftlaunch("run", folder, "--json", "--yes", *short, **home).stdout)
    training = json.loads((Path(done["output"]) / "result.json").read_text())["training"]
    after = here()
    assert "1 of your own runs" in after["rests_on"]
    steps = 2 * 180 / 8  # two epochs in batches of eight
    foretold, old = after["hours"]["train"], before["hours"]["train"]
    assert foretold["expected"] * 3600 == pytest.approx(training["seconds"] / training["steps"] * steps, rel=0.3)
    assert foretold["high"] / foretold["low"] < old["high"] / old["low"]
