"""One real job that is tracked by every tracker, read back by their own clients."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import tasks
from tests.training.test_tracking import READ_MLFLOW, READ_TRACKIO, read


def test_a_job_s_curves_are_in_every_tracker(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "colours", "colours", train=40, validation=12, test=12)
    trackers = ["mlflow", "trackio", "wandb", "tensorboard"]
    job = write_job(folder, tracking={"report_to": trackers}, train={"epochs": 1.0})
    out, result = run_job(ftlaunch, job)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [[line["step"], line["train/loss"]] for line in lines if "train/loss" in line]
    assert losses
    name, status, params, history = read(READ_MLFLOW, out, MLFLOW_ALLOW_FILE_STORE="true")
    assert (name, status, params["rank"], history) == (result["job"], "FINISHED", "8", losses)
    name, rank, logged = read(READ_TRACKIO, out)
    assert (name, rank) == (result["job"], 8)
    assert [[each["train/global_step"], each["train/loss"]] for each in logged if "train/loss" in each] == losses
    assert len(list((out / "wandb").rglob("*.wandb"))) == 1
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    assert list((out / "tensorboard").rglob("events.*"))
