"""What a container says of a failure holds no secret: neither its log, nor what it leaves for the service."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from tests.training.conftest import Entry
from training_image.__main__ import main
from training_image.platform import detect

VALUE = "hunter2-0123456789"
NAMED = {"FTLAUNCH_SECRET_MY_TOKEN": "file:/none", "MY_TOKEN": VALUE}


def with_the_secret_in_an_error(entry: Entry) -> None:
    entry.write()
    spec = json.loads((entry.folder / "spec.json").read_text())
    spec["model"]["id"] = f"nobody/{VALUE}"
    (entry.folder / "spec.json").write_text(json.dumps(spec))


def test_a_message_and_a_traceback_hide_it(entry: Entry, tmp_path: Path) -> None:
    with_the_secret_in_an_error(entry)
    told = entry.run(code=2, environment=NAMED)
    assert "nobody/***" in told
    assert VALUE not in told
    crash = f"from training_image import secrets; secrets.hide(); print('on', flush=True); raise KeyError('{VALUE}')"
    (tmp_path / "crash.py").write_text(crash)
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    process = entry.start(module="crash", environment={**NAMED, "PYTHONPATH": path})
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "on\n" in told
    assert "KeyError: '***'" in told
    assert VALUE not in told


def test_what_is_left_for_the_service_hides_it(entry: Entry, tmp_path: Path, monkeypatch) -> None:
    with_the_secret_in_an_error(entry)
    places = {name: str(entry.folder / path) for name, path in (("spec", "spec.json"), ("data", "data"))}
    places |= {name: str(entry.folder / name) for name in ("output", "checkpoints")}
    left = replace(detect(places), failure_file=tmp_path / "failure", failure_limit=1000)
    monkeypatch.setattr("training_image.__main__.detect", lambda given: left)
    for name, value in NAMED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("training_image.secrets.hide", lambda: None)  # pytest's own streams stay
    arguments = [part for name, path in places.items() for part in (f"--{name}", path)]
    assert main(["train", *arguments]) == 2
    assert "nobody/***" in (tmp_path / "failure").read_text()
    assert VALUE not in (tmp_path / "failure").read_text()
