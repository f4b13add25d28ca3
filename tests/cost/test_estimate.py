"""The estimate of a job, its budget and its actual cost, by real jobs in a place that sends bills."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

from backends.interface import Plan, State, Status
from launcher import lifecycle
from launcher.actual_cost import actual_usd
from launcher.cli import screen
from launcher.cost import estimate, history
from launcher.job import load
from launcher.store import Record, Store
from tests.launcher.conftest import PLUGIN, Command, ftlaunch, wait_for  # noqa: F401

MODEL = Path(__file__).parents[1] / "tiny_model" / "model"


@pytest.fixture
def job(ftlaunch: Command) -> Path:
    """A job on the tiny model in the place that sends bills."""
    folder = ftlaunch.folder / "birds"
    folder.mkdir()
    words = ("a small bird of the wood", "a large stone in the river", "a red wing", "an old grey hill")
    rows = [f'{{"text": "{words[n % 4]} {n}", "label": "{"xy"[n % 2]}"}}\n' for n in range(80)]
    (folder / "rows.jsonl").write_text("".join(rows))
    write(folder)
    return folder


def write(folder: Path, **more) -> None:
    task = {"model": {"id": str(MODEL)}, "data": {"train": "rows.jsonl"}, "task": {"type": "classification"}}
    (folder / "ftlaunch.yaml").write_text(yaml.safe_dump(task | {"backend": "billed"} | more))


def test_a_dry_run_tells_the_estimate(ftlaunch, job):
    told = ftlaunch.json("run", job, "--dry-run")["estimate"]
    assert told["machine"] == "rented"
    assert 0 < told["total_usd"]["low"] < told["total_usd"]["expected"] < told["total_usd"]["high"]
    assert told["usd"] == pytest.approx(told["total_usd"], rel=1e-5)
    assert "dollars" in ftlaunch("run", job, "--dry-run").stdout
    assert ftlaunch.json("run", job, "--dry-run", BILLED_USD="")["estimate"]["total_usd"] is None
    here = ftlaunch.json("run", job, "--dry-run", "--backend", "local")["estimate"]
    assert (here["total_usd"], here["usd"]["high"], here["price"]["kind"]) == (None, 0.0, "free")


def test_estimate_and_actual_of_a_job_and_no_new_price_later(ftlaunch, job):
    done = ftlaunch.json("run", job, "--yes")
    assert done["state"] == "SUCCEEDED"
    assert done["estimate_usd"] > 0
    assert done["actual_usd"] == pytest.approx(90 * 36 / 3600)  # the place's seconds at the price kept at submit
    assert ftlaunch.json("status", done["job"], BILLED_USD="72")["actual_usd"] == done["actual_usd"]
    (again,) = ftlaunch.json("jobs", "--cost", BILLED_USD="72")
    assert again["actual_usd"] == done["actual_usd"]
    assert again["estimate"]["price"]["as_of"] == "2026-11-01"
    text = ftlaunch("jobs", "--cost").stdout
    assert "0.90" in text
    assert "snapshot 2026-11-01" in text


def test_a_screening_is_priced_as_one_without_training_and_with_one_start(home, job, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PLUGIN))  # as the command has it
    write(job, train={"epochs": 50})
    file = load(str(job))
    other = tmp_path / "other"
    shutil.copytree(MODEL, other)

    def billed(*models: str) -> float:
        asked = screen._prepared(file, [str(model) for model in models]) if models else file
        return lifecycle.make_plan(asked, None).estimate["billed_hours"]["expected"]

    one, two = billed(MODEL), billed(MODEL, other)
    assert one < two < 1.2 * one < billed()


def test_a_job_without_a_bill_has_cost_nothing(ftlaunch, job):
    write(job, backend="scripted")
    done = ftlaunch.json("run", job)
    assert (done["estimate_usd"], done["actual_usd"]) == (0.0, 0.0)
    assert "no bill" in ftlaunch("jobs", "--cost").stdout


def test_a_budget_below_the_low_end_is_refused_before_anything_is_sent(ftlaunch, job):
    low = ftlaunch.json("run", job, "--dry-run")["estimate"]["total_usd"]["low"]
    write(job, budget={"max_hours": low / 36 * 0.9})
    refused = ftlaunch("run", job, "--yes", code=2)
    assert "budget.max_hours" in refused.stderr
    assert "ftlaunch cost" in refused.stderr
    write(job, budget={"max_usd": 0.5})
    assert "budget.max_usd" in ftlaunch("run", job, "--yes", code=2).stderr
    write(job, train={"epochs": 9000}, budget={"max_usd": 9})  # enough for the start, and not for the training
    assert "is expected to cost at least" in ftlaunch("run", job, "--yes", code=2).stderr
    assert ftlaunch.json("jobs") == []


def test_dollars_become_the_longest_run_time(ftlaunch, job):
    def seconds(**budget) -> int:
        write(job, budget=budget)
        return ftlaunch.json("run", job, "--dry-run")["request"]["max_seconds"]

    around = 480
    assert seconds(max_usd=36) == 3600 - around
    assert seconds(max_usd=36, max_hours=0.5) == 1800
    assert seconds(max_usd=18, max_hours=9) == 1800 - around
    write(job, budget={"max_usd": 36}, resources={"machines": 2})
    assert ftlaunch.json("run", job, "--dry-run")["request"]["max_seconds"] == 1800 - around
    for usd in ("", "0", "nan"):  # a price that cannot be is none
        refused = ftlaunch("run", job, "--dry-run", code=2, BILLED_USD=usd)
        assert "the price of billed rented is not known" in refused.stderr
        assert "max_hours" in refused.stderr


@pytest.mark.parametrize("backend", ["sagemaker", "vertex", "azureml", "colab", "colab-enterprise", "docker", "local"])
def test_every_backend_has_an_estimate(home, job, backend):
    write(job, backend=backend)
    planned = lifecycle.make_plan(load(str(job)), None)
    record = planned.record(job / "out", "")
    assert planned.estimate["backend"] == backend
    assert record.estimate_usd == estimate.expected_usd(planned.estimate)
    assert (record.estimate_usd is None) == (backend == "colab-enterprise")  # no rates of it were found
    assert (record.estimate_usd == 0) == (not planned.bills)


@pytest.mark.parametrize(
    ("backend", "resources", "bills"),
    [("colab", {"gpu": "A100"}, True), ("colab", {"machine": "T4 (free)"}, False), ("local", {}, False)],
)
def test_what_has_a_bill_is_told_by_place_and_machine(home, job, backend, resources, bills):
    write(job, backend=backend, resources=resources)
    assert lifecycle.make_plan(load(str(job)), None).bills is bills


def test_a_machine_that_is_kept_warm_is_in_the_estimate_and_the_budget(home, job):
    def planned(**options) -> lifecycle.Planned:
        machine = {"resources": {"machine": "ml.g5.xlarge"}, "budget": {"max_usd": 3}}
        write(job, backend="sagemaker", backends={"sagemaker": options}, **machine)
        return lifecycle.make_plan(load(str(job)), None)

    cold, warm = planned(), planned(keep_alive_seconds=600)
    assert warm.plan.max_seconds == cold.plan.max_seconds - 600
    for end in ("low", "high"):
        assert warm.estimate["usd"][end] - cold.estimate["usd"][end] == pytest.approx(600 * warm.estimate["rate"])


def test_a_resume_keeps_the_budget_for_both_runs(ftlaunch, job):
    """The place bills 90 seconds at 36 dollars an hour; a resume has the limit of the first run again."""
    write(job, budget={"max_usd": 36}, backends={"billed": {"steps": 100}})
    name = ftlaunch.json("run", job, "--yes", "--detach")["job"]
    ftlaunch("cancel", name)
    wait_for(lambda: ftlaunch.start("status", name).wait() == 5)
    refused = ftlaunch("run", job, "--resume", code=2).stderr
    assert "0.90 dollars are spent, and going on may take 36.00" in refused
    assert "set budget.max_usd to 36.90 or more" in refused
    assert ftlaunch.json("run", job, "--resume", "--set", "budget.max_usd=37")["job"] == name


@pytest.mark.parametrize(
    ("found", "billed", "ended", "elapsed", "usd"),
    [
        ({"rate": 0.01, "machines": 2}, 50.0, False, 10.0, 0.5),  # the service has counted both machines already
        ({"rate": 0.01, "machines": 2}, None, True, 50.0, 1.0),  # by our clock
        ({"rate": 0.01, "machines": 2}, None, False, 50.0, None),
        ({"rate": None}, 50.0, True, 50.0, None),  # an unknown price is not zero
        ({"rate": 0.0}, None, True, 50.0, 0.0),
        (None, 50.0, True, 50.0, None),
    ],
)
def test_actual_cost(found, billed, ended, elapsed, usd):
    assert actual_usd(found, billed, ended, elapsed) == usd


def test_a_finished_job_sharpens_the_next_estimate(home, tmp_path):
    output = tmp_path / "done"
    output.mkdir()
    result = {
        "training": {"steps": 50, "seconds": 100.0},
        "model": {"parameters": 8_000_000_000},
        "settings": {"checkpointing": "on"},
        "platform": {"device": "cuda"},
    }
    (output / "result.json").write_text(json.dumps(result))
    (output / "manifest.json").write_text(json.dumps({"environment": {"gpu": "NVIDIA A10G"}}))
    kept = {"work": {"train_tokens": 100_000.0, "steps": 100, "tokens": 2000, "cores": 8}}
    store = Store(home)
    record = Record("a", "c", 0, "sagemaker", "", "", None, str(output), output=str(output), estimate=kept)
    store.add(record)
    (run,) = history.own_runs(store)
    assert (run.gpu, run.tokens_per_second, run.checkpointing) == ("A10G", 500.0, True)
    # Two machines of one GPU each: the estimate had counted all tokens on the one.
    result["platform"]["parallel"] = {"processes": 2, "base": "whole", "why": ""}
    (output / "result.json").write_text(json.dumps(result))
    assert history.own_runs(store)[0].tokens_per_second == 250.0
    result["platform"]["parallel"]["base"] = "sharded"
    (output / "result.json").write_text(json.dumps(result))
    assert history.own_runs(store) == []
    (output / "result.json").write_text("{")
    assert history.own_runs(store) == []
    store.close()


def test_a_run_on_several_gpus_that_took_as_long_as_expected_changes_no_estimate(home, job, tmp_path):
    train = {"batch_size": 64, "micro_batch_tokens": 128, "epochs": 200}
    eight = {"backend": "sagemaker", "resources": {"machine": "ml.g6.48xlarge"}, "train": train}
    write(job, model={"id": "Qwen/Qwen2.5-7B"}, **eight)
    file, store = load(str(job)), Store(home)

    def found() -> dict:
        return lifecycle.make_plan(file, store).estimate

    first = found()
    assert first["gpu_count"] == 8
    result = {
        "training": {"steps": first["work"]["steps"], "seconds": first["hours"]["train"]["expected"] * 3600},
        "settings": {"checkpointing": "off"},
        "platform": {"device": "cuda", "parallel": {"processes": 8, "base": "whole", "why": ""}},
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "manifest.json").write_text(json.dumps({"environment": {"gpu": "NVIDIA L4"}}))
    for name in "abc":
        store.add(Record(name, name, 0, "sagemaker", "", "", None, "", output=str(tmp_path), estimate=first))
    again = found()
    assert "3 of your own runs" in again["rests_on"]
    assert again["hours"]["train"]["expected"] == pytest.approx(first["hours"]["train"]["expected"], rel=0.05)
    store.close()


def test_seconds_are_priced_as_they_come(home):
    store = Store(home)
    plan = Plan.model_validate({"backend": "x", "job_name": "a", "request": {}, "inputs": {}, "spec": spec()})
    record = Record("a", "c", 0, "x", "", "", plan, "", submitted=time.time(), estimate={"rate": 0.01, "machines": 1})
    store.add(record)
    assert store.observe("a", Status(state=State.RUNNING, billable_seconds=10)).actual_usd == pytest.approx(0.1)
    assert store.observe("a", Status(state=State.SUCCEEDED, billable_seconds=20)).actual_usd == pytest.approx(0.2)
    assert store.observe("a", Status(state=State.SUCCEEDED)).actual_usd == pytest.approx(0.2)
    store.close()


def test_the_days_between_an_end_and_a_resume_cost_nothing(home):
    store = Store(home)
    day, now = 86400.0, time.time()
    store.add(Record("a", "c", 0, "x", "", "", None, "", submitted=now - 3 * day, ended=now - 3 * day + 100))
    assert (
        store.update("a", seconds_before=100.0, submitted=now - 50, ended=None, estimate={"rate": 0.01}).seconds >= 150
    )
    assert store.observe("a", Status(state=State.SUCCEEDED)).actual_usd == pytest.approx(1.5, abs=0.1)
    store.close()


def spec() -> dict:
    return {
        "schema": 1,
        "job": "a",
        "model": {"id": "x"},
        "data": {"train": "x.jsonl"},
        "task": {"type": "classification"},
    }
