"""Each tracker's run, read back by its own client; and that a tracker which fails costs no job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training_image.tracking import public_address

ROOT = Path(__file__).parents[2]
SPEC = {
    "schema": 1,
    "job": "birds-00000000",
    "model": {"id": "m"},
    "data": {"train": "train.jsonl"},
    "task": {"type": "classification"},
}
LINES = [{"step": step, "time": 1.7e9 + step, "epoch": step / 3, "train/loss": 1 / step} for step in (1, 2, 3)]
LINES[-1]["validation/loss"] = 0.5
LOSSES = [(line["step"], line["train/loss"]) for line in LINES]
WRITE = """
import json, sys
from pathlib import Path
from training_image.spec import Spec
from training_image.tracking import Trackers
told = json.loads(sys.argv[1])
trackers = Trackers(Path(sys.argv[2]), Spec.model_validate(told["spec"]), {"rank": 8}, told["history"])
for line in told["lines"]:
    trackers.log(line)
trackers.close()
"""


def track(folder: Path, name: str, *, history: list[Any] = [], lines: list[Any] = LINES, **env: str) -> str:  # noqa: B006
    """Send lines in a process of its own, as the training does: the clients keep state and read the environment."""
    told = {"spec": SPEC | {"tracking": {"report_to": [name]}}, "history": history, "lines": lines}
    done = subprocess.run(
        [sys.executable, "-c", WRITE, json.dumps(told), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "WANDB_API_KEY": "", **env},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(code: str, folder: Path, **env: str) -> Any:
    """What another process reads by the tracker's own client."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


READ_MLFLOW = """
import json
from mlflow import MlflowClient
client = MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("ftlaunch").experiment_id])
history = [[each.step, each.value] for each in client.get_metric_history(run.info.run_id, "train/loss")]
page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
print(json.dumps([run.info.run_name, run.info.status, run.data.params, history, page]))
"""
OPENED_MLFLOW = """
import json
from mlflow import MlflowClient
def told(run):
    return [[each.step, each.value] for each in MlflowClient().get_metric_history(run, "train/loss")]
"""
OPEN_MLFLOW = f"""{OPENED_MLFLOW}
print(json.dumps(MlflowClient().create_run(MlflowClient().create_experiment("theirs")).info.run_id))
"""
READ_TRACKIO = """
import json, os, sys
os.environ["TRACKIO_DIR"] = f"{sys.argv[1]}/trackio"
import trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("ftlaunch")
print(json.dumps([run.name, run.config["rank"], SQLiteStorage.get_logs("ftlaunch", run.name)], default=str))
"""


def read_wandb(path: Path) -> list[dict[str, Any]]:
    """The records of a run's file by W&B's own reader, which leaves out what has a wrong checksum and says so."""
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", path],
        env={**os.environ, "WANDB_ERROR_REPORTING": "false"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[-1]["type"] == "exit"  # a file that is cut off has no error
    return records


def wandb_losses(records: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """The training losses of a run's history, by step."""
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [(row["train/global_step"], row["train/loss"]) for row in rows if "train/loss" in row]


def test_mlflow_reads_its_run_back_and_a_second_start_repeats_no_step(tmp_path: Path) -> None:
    track(tmp_path, "mlflow")
    expected = [list(each) for each in LOSSES]
    # As a server would, the folder keeps what the first start sent.
    server = {"MLFLOW_TRACKING_URI": f"file://{tmp_path}/mlflow", "MLFLOW_ALLOW_FILE_STORE": "true"}
    assert read(READ_MLFLOW, tmp_path, **server)[:4] == ["birds-00000000", "FINISHED", {"rank": "8"}, expected]
    track(tmp_path, "mlflow", history=LINES[:2], lines=LINES[2:], **server)
    assert read(READ_MLFLOW, tmp_path, **server)[3] == expected


def test_mlflow_fills_the_run_that_is_named(tmp_path: Path) -> None:
    server = {"MLFLOW_TRACKING_URI": f"file://{tmp_path}/theirs", "MLFLOW_ALLOW_FILE_STORE": "true"}
    run = read(OPEN_MLFLOW, tmp_path, **server)
    track(tmp_path, "mlflow", MLFLOW_RUN_ID=run, **server)
    told = read(f"{OPENED_MLFLOW}\nprint(json.dumps(told({run!r})))", tmp_path, **server)
    assert [tuple(each) for each in told] == LOSSES


def test_trackio_reads_its_run_back(tmp_path: Path) -> None:
    track(tmp_path, "trackio", history=LINES[:1], lines=LINES[1:])
    name, rank, history = read(READ_TRACKIO, tmp_path)
    assert (name, rank) == ("birds-00000000", 8)
    assert [(row["train/global_step"], row["train/loss"]) for row in history] == LOSSES


def test_the_offline_folder_of_wandb_is_valid(tmp_path: Path) -> None:
    track(tmp_path, "wandb", history=LINES[:1], lines=LINES[1:])
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = read_wandb(path)
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["run_id"], run["project"]) == ("birds-00000000", "ftlaunch")
    assert wandb_losses(records) == LOSSES
    content = path.read_bytes()
    path.write_bytes(content.replace(b"train/loss", b"train/lost", 1))
    with pytest.raises(AssertionError, match="checksum mismatch"):
        read_wandb(path)


def test_tensorboard_reads_its_events_back_here_and_where_the_service_looks(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(tmp_path, "tensorboard", AIP_TENSORBOARD_LOG_DIR=str(tmp_path / "service"))
    for folder in ("tensorboard", "service"):
        events = EventAccumulator(str(tmp_path / folder))
        events.Reload()
        told = [(each.step, each.value) for each in events.Scalars("train/loss")]
        assert told == [(step, pytest.approx(loss)) for step, loss in LOSSES]
        assert [(each.step, each.value) for each in events.Scalars("eval/loss")] == [(3, 0.5)]


def test_a_tracker_that_fails_is_left_out(tmp_path: Path) -> None:
    server = "http://me:s3cr3t@127.0.0.1:9/"
    out = track(tmp_path, "mlflow", MLFLOW_TRACKING_URI=server, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert "mlflow is left out from here on" in out
    assert "s3cr3t" not in out


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("http://mlflow.corp:5000", "http://mlflow.corp:5000"),
        ("https://me:s3cr3t@mlflow.corp/curves/?token=x", "https://mlflow.corp/curves"),
        ("https://me:s3@cr3t@mlflow.corp", "https://mlflow.corp"),
        ("https://me:s3/cr3t@mlflow.corp", None),
        ("https://me:s3?cr3t@mlflow.corp", None),
        ("https://me:[s3cr3t@mlflow.corp", None),
        ("file:///work/mlflow", None),
    ],
)
def test_a_link_tells_no_password(server: str, address: str | None) -> None:
    assert public_address(server) == address
