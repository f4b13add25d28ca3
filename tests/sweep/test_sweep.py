"""Sweeps on a quick place: killed and continued, pruned, side by side, and never given a test row."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
import yaml

from launcher.job import load
from launcher.rows import read_splits
from tests.launcher.conftest import PLUGIN, Command, ftlaunch  # noqa: F401
from tests.tiny_model import MODEL, tasks

SEARCH = ("--search", "train.rank=8..40", "--trials", "6", "--at-once", "2")


def write_job(folder: Path, *, own_test: bool, steps: int = 8, backend: str = "scripted") -> Path:
    rows = tasks.splits(tasks.sorts, 0, {"train": 90, "validation": 20, "test": 30})
    if own_test:
        for split, some in rows.items():
            tasks.write_jsonl(folder / f"{split}.jsonl", some)
        data: dict[str, Any] = {split: f"{split}.jsonl" for split in rows}
    else:
        tasks.write_jsonl(folder / "rows.jsonl", [row for some in rows.values() for row in some])
        data = {"train": "rows.jsonl"}
    job = {
        "name": "birds",
        "model": {"id": str(MODEL)},
        "data": data,
        "task": {"type": "classification"},
        "evaluate": {"slices": ["source"]},
        "backend": backend,
        "backends": {backend: {"steps": steps}},
    }
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job))
    return folder


def trial_jobs(ftlaunch: Command) -> list[dict[str, Any]]:
    return [job for job in ftlaunch.json("jobs") if "-trial-" in job["job"]]


def test_a_killed_sweep_goes_on_and_trains_the_best_again(ftlaunch: Command) -> None:
    job = write_job(ftlaunch.folder / "birds", own_test=True)
    with ftlaunch.start("sweep", job, *SEARCH) as first:
        until = time.monotonic() + 100
        while len([each for each in trial_jobs(ftlaunch) if each["state"] == "SUCCEEDED"]) < 2:
            assert time.monotonic() < until
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
    told = ftlaunch.json("sweep", job, *SEARCH)
    assert [trial["number"] for trial in told["trials"]] == list(range(6))
    done = [trial for trial in told["trials"] if trial["state"] == "COMPLETE"]
    best = max(done, key=lambda trial: trial["value"])
    assert told["best"] == best["number"]
    assert best["value"] == pytest.approx(1 - abs(best["params"]["train.rank"] - 32) / 100)
    jobs = trial_jobs(ftlaunch)
    assert {each["job"] for each in jobs} == {trial["job"] for trial in told["trials"]}  # none was started twice
    beside = [sum(other["created"] <= each["created"] < other["ended"] for other in jobs) for each in jobs]
    assert max(beside) == 2
    last = yaml.safe_load((Path(told["job"]["output"]) / "job.yaml").read_text())
    assert last["train"]["rank"] == best["params"]["train.rank"]
    assert last["data"]["test"] == str(job / "test.jsonl")
    study = optuna.load_study(study_name=told["sweep"], storage=f"sqlite:///{told['storage']}")
    assert study.best_trial.number == told["best"]
    again = ftlaunch.json("sweep", job, *SEARCH)  # everything is there: nothing is run or paid for again
    assert (again["trials"], again["job"]["job"]) == (told["trials"], told["job"]["job"])


@pytest.mark.parametrize("own_test", [True, False], ids=["a file of test rows", "split off by hash"])
def test_no_trial_is_given_a_test_row(ftlaunch: Command, own_test: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))  # as the command has it
    job = write_job(ftlaunch.folder / "birds", own_test=own_test, steps=1)
    told = ftlaunch.json("sweep", job, "--search", "train.rank=8,16", "--trials", "2")
    test_rows = {example.text for example in read_splits(load(str(job))).test}
    assert len(test_rows) > 5
    kept = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in (ftlaunch.home / "rows").iterdir()}
    for trial in told["trials"]:
        sent = plan(ftlaunch, trial["job"])
        assert {name for name in sent["inputs"] if not name.startswith("model/")} == {"train.jsonl", "validation.jsonl"}
        files = [kept[sent["inputs"][f"{split}.jsonl"]] for split in ("train", "validation")]
        assert not {row["text"] for path in files for row in tasks.read_jsonl(path)} & test_rows
        assert (sent["spec"]["goal"], sent["spec"]["data"]["test"]) == ("trial", None)
        assert sent["spec"]["data"]["split"]["test"] == 0
    last = plan(ftlaunch, told["job"]["job"])["spec"]
    assert (last["goal"], last["data"]["test"]) == ("tune", "test.jsonl" if own_test else None)


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_bad_trials_are_stopped_early(ftlaunch: Command, pruner: str) -> None:
    job = write_job(ftlaunch.folder / "birds", own_test=True, steps=30)
    search = ("--search", "train.rank=1..200", "--trials", "9", "--sampler", "random", "--pruner", pruner)
    told = ftlaunch.json("sweep", job, *search)
    pruned = [trial for trial in told["trials"] if trial["state"] == "PRUNED"]
    assert pruned
    for trial in pruned:
        assert 1 <= last_step(ftlaunch, trial["job"]) < 30
    states = {each["job"]: each["state"] for each in trial_jobs(ftlaunch)}
    assert {states[trial["job"]] for trial in pruned} == {"CANCELLED"}
    whole = [trial["value"] for trial in told["trials"] if trial["state"] == "COMPLETE"]
    assert min(1 - abs(trial["params"]["train.rank"] - 32) / 100 for trial in pruned) < max(whole)


def test_without_a_pruner_all_trials_come_to_their_end(ftlaunch: Command) -> None:
    job = write_job(ftlaunch.folder / "birds", own_test=True, steps=12)
    search = ("--search", "train.rank=32,180,190,200", "--trials", "5", "--sampler", "random", "--pruner", "none")
    told = ftlaunch.json("sweep", job, *search)
    assert [trial["state"] for trial in told["trials"]] == 5 * ["COMPLETE"]
    assert {last_step(ftlaunch, trial["job"]) for trial in told["trials"]} == {12}


def last_step(ftlaunch: Command, job: str) -> int:
    """The last step that the job's output tells."""
    return int(re.findall(r" step=(\d+)", ftlaunch("logs", job).stdout)[-1])


def test_optuna_dashboard_shows_the_sweep(ftlaunch: Command) -> None:
    job = write_job(ftlaunch.folder / "birds", own_test=True, steps=2)
    told = ftlaunch.json("sweep", job, "--search", "train.rank=8,16", "--trials", "2")
    app = optuna_dashboard.wsgi(f"sqlite:///{told['storage']}")
    (study,) = asked(app, "/api/studies")["study_summaries"]
    assert study["study_name"] == told["sweep"]
    trials = asked(app, f"/api/studies/{study['study_id']}")["trials"]
    for shown, trial in zip(trials, told["trials"], strict=True):
        assert (shown["number"], shown["state"].upper()) == (trial["number"], trial["state"])
        assert shown["values"] == [trial["value"]]
        assert [each["step"] for each in shown["intermediate_values"]] == [1, 2]
        assert {"key": "job", "value": trial["job"]} in shown["user_attrs"]


def asked(app: Any, path: str) -> Any:
    """What a web application answers, asked without a server."""
    environ: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    said: list[str] = []
    body = b"".join(app(environ, lambda status, headers, *_: said.append(status)))
    assert said == ["200 OK"]
    return json.loads(body)


def test_a_sweep_with_a_bill_wants_a_limit_and_hands_it_to_the_place(ftlaunch: Command) -> None:
    job = write_job(ftlaunch.folder / "birds", own_test=True, steps=1, backend="billed")
    search = ("--search", "train.rank=8,16", "--trials", "2", "--at-once", "2")
    assert "--max-usd" in ftlaunch("sweep", job, *search, code=2).stderr
    told = ftlaunch.json("sweep", job, *search, "--max-hours", "0.5")
    caps = [
        plan(ftlaunch, name)["max_seconds"]
        for name in (*(trial["job"] for trial in told["trials"]), told["job"]["job"])
    ]
    assert all(0 < cap <= 1800 for cap in caps)
    assert sum(caps[:2]) <= 1800


def test_a_sweep_stops_where_the_next_trial_would_break_its_dollars(ftlaunch: Command) -> None:
    """The place bills 0.90 dollars a job; its price makes 6 dollars and more of the start that is expected."""
    job = write_job(ftlaunch.folder / "birds", own_test=True, steps=1, backend="billed")
    search = ("sweep", job, "--search", "train.rank=1..90", "--trials", "8", "--pruner", "none")
    refused = ftlaunch(*search, "--max-usd", "9", code=2)
    assert "a trial and the training of the best" in refused.stderr
    done = ftlaunch(*search, "--set", "budget.max_usd=13", "--at-once", "2", "--json")
    told = json.loads(done.stdout)
    spent = sum(trial["usd"] for trial in told["trials"])
    assert "has no room for another" in done.stderr
    assert 2 <= len(told["trials"]) < 8
    assert spent == pytest.approx(0.9 * len(told["trials"]))
    kept, start = 2 * 0.9, 36 / 3600 * (480 + 120)
    assert spent + kept + start > 13 - 2.5  # the next one was too much; it was expected to train for a while as well
    assert sum(each["actual_usd"] for each in ftlaunch.json("jobs")) <= 13
    caps = [plan(ftlaunch, trial["job"])["max_seconds"] for trial in told["trials"]]
    assert all((cap + 480) * 36 / 3600 <= 13 for cap in caps)
    assert sum((cap + 480) * 36 / 3600 for cap in caps[:2]) <= 13
    last = plan(ftlaunch, told["job"]["job"])["max_seconds"]
    assert (last + 480) * 36 / 3600 <= 13 - spent


def plan(ftlaunch: Command, job: str) -> dict[str, Any]:
    """What the place was sent."""
    with sqlite3.connect(ftlaunch.home / "jobs.db") as store:
        (told,) = store.execute("SELECT plan FROM jobs WHERE job = ?", [job]).fetchone()
    return json.loads(told)


def test_a_missing_extra_is_named(ftlaunch: Command) -> None:
    job = write_job(ftlaunch.folder / "birds", own_test=True)
    code = "import sys; sys.modules['optuna'] = None; from launcher.cli import call; sys.exit(call(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, "sweep", str(job), "--search", "train.rank=8,16"]
    done = subprocess.run(argv, env=ftlaunch.environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "ftlaunch[local,sweep]" in done.stderr


def test_wrong_settings_are_told_before_anything_runs(ftlaunch: Command) -> None:
    job = write_job(ftlaunch.folder / "birds", own_test=True)
    assert "train.rnak" in ftlaunch("sweep", job, "--search", "train.rnak=8,16", code=2).stderr
    assert "train.rank" in ftlaunch("sweep", job, "--search", "train.rank=8,9000", code=2).stderr
    assert not trial_jobs(ftlaunch)
