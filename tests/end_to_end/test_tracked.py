"""One real job that is tracked by every tracker, read back by their own clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import tasks
from tests.training.test_tracking import READ_MLFLOW, READ_TRACKIO, read, read_wandb, wandb_losses


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """The address of a real server; its database lies in the test's folder."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--backend-store-uri", "sqlite:///mlflow.db"]
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = tmp_path / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            cwd=tmp_path,
            env=os.environ | quick,
            stdout=out,
            stderr=out,
            start_new_session=True,  # it is ended with its worker
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{address}/health"):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:  # refused, or not yet able to answer
        return False


def test_a_job_s_curves_are_in_every_tracker(
    ftlaunch: Run, tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    folder = tasks.write(tmp_path / "colours", "colours", train=40, validation=12, test=12)
    trackers = ["mlflow", "trackio", "wandb", "tensorboard"]
    job = write_job(folder, tracking={"report_to": trackers}, train={"epochs": 1.0})
    out, result = run_job(ftlaunch, job)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [[line["step"], line["train/loss"]] for line in lines if "train/loss" in line]
    assert losses
    name, status, params, history, page = read(READ_MLFLOW, out)
    assert (name, status, params["rank"], history) == (result["job"], "FINISHED", "8", losses)
    link = f"{mlflow_server}/{page}"
    assert result["tracking"] == {"mlflow": link}
    assert json.loads(ftlaunch("status", result["job"], "--json").stdout)["links"] == {"mlflow": link}
    assert f">{link}<" in Path(ftlaunch("report", result["job"]).stdout.strip()).read_text()
    name, rank, logged = read(READ_TRACKIO, out)
    assert (name, rank) == (result["job"], 8)
    assert [[each["train/global_step"], each["train/loss"]] for each in logged if "train/loss" in each] == losses
    (path,) = (out / "wandb").rglob("*.wandb")
    assert [list(each) for each in wandb_losses(read_wandb(path))] == losses
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    assert list((out / "tensorboard").rglob("events.*"))
