"""The studio's curves against an MLflow server on loopback: slow, hanging, refusing."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training_image import studio
from training_image.platform import Platform

FOLDER = Path("unused")
AZUREML = Platform("azureml", FOLDER, FOLDER, FOLDER, FOLDER, None)


class Server(ThreadingHTTPServer):
    """Takes log-batch calls; ``go_on`` is what each waits for, ``seconds`` at most."""

    seconds, status = 0.0, 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.metrics, self.calls = [], 0
        self.go_on = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, told["run_id"]) == ("/api/2.0/mlflow/runs/log-batch", "a-run")
        self.server.calls += 1
        self.server.go_on.wait(self.server.seconds)
        if self.server.status == 200:
            self.server.metrics += [(each["key"], each["step"], each["value"]) for each in told["metrics"]]
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        for name, value in studio.CLIENT.items():  # they stay in the environment of whoever sets them
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{made.server_port}")
        monkeypatch.setenv("MLFLOW_RUN_ID", "a-run")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield made
        made.go_on.set()
        made.shutdown()


def steps(place):
    """Log twenty steps; gives the seconds that took."""
    began = time.monotonic()
    for step in range(20):
        place.log({"train/loss": 1.0 / (step + 1), "train/grad_norm": 0.5}, step)
    return time.monotonic() - began


def test_a_slow_studio_slows_no_step_and_gets_every_metric(server, monkeypatch):
    server.seconds = 2.0
    monkeypatch.setattr(studio, "LAST_SECONDS", 60.0)  # the first call imports MLflow's client
    place = studio.Studio(AZUREML)
    assert steps(place) < 1.0
    place.close()
    expected = [
        (name, step, value)
        for step in range(20)
        for name, value in (("train/loss", 1 / (step + 1)), ("train/grad_norm", 0.5))
    ]
    assert server.metrics == expected
    assert server.calls == 2  # the first line's, and one for all that came meanwhile


def test_a_studio_that_hangs_does_not_hold_up_the_end(server, monkeypatch, capsys):
    server.seconds = 60.0
    monkeypatch.setattr(studio, "LAST_SECONDS", 0.5)
    place = studio.Studio(AZUREML)
    steps(place)
    began = time.monotonic()
    place.close()
    assert time.monotonic() - began < 5
    assert "did not take the last metrics" in capsys.readouterr().out


def test_a_studio_that_refuses_is_said_once_and_left_alone(server, capsys):
    server.status = 400
    place = studio.Studio(AZUREML)
    steps(place)
    place.close()
    steps(place)
    place.close()
    assert capsys.readouterr().out.count("the studio does not take the metrics") == 1
    assert server.calls == 1


def test_no_studio_is_asked_elsewhere(server):
    place = studio.Studio(Platform("local", FOLDER, FOLDER, FOLDER, FOLDER, None))
    steps(place)
    place.close()
    assert server.calls == 0
