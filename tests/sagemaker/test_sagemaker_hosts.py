"""Two machines: one adapter, one machine's loss, both machines' lines; one that dies ends the job."""

import json

import pytest

from backends.conformance.jobs import Watch, prepare, start
from backends.interface import Reason, Resources, State


def two(harness, kind, **variant):
    job = prepare(harness, kind, **variant)
    resources = Resources(machine=harness.runs.small.resources.machine, machines=2)
    submission = job.submission.model_copy(update={"resources": resources})
    return type(job)(submission, harness.fresh().plan(submission), job.files)


@pytest.fixture(scope="module")
def pair(harness):
    job = two(harness, "pair")
    run = Watch(harness, start(harness, job)).finish(job)
    assert run.end.state is State.SUCCEEDED, (run.end, [line.text for line in run.lines][-20:])
    return run


def history(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


def test_sagemaker_two_hosts_have_one_hosts_loss(pair, harness):
    alone, together = history(harness.runs.output), history(harness.runs.fetch(pair.handle, "pair"))
    assert len(alone) == len(together)
    assert together == pytest.approx(alone, rel=1e-3)


def test_sagemaker_two_hosts_make_one_adapter(pair, harness):
    folder = harness.folder / "fetch-pair" / "output"
    if not folder.exists():
        harness.runs.fetch(pair.handle, "pair")
    assert len(list(folder.rglob("adapter_model.safetensors"))) == 1
    assert json.loads((folder / "result.json").read_text())["training"]["steps"] == 6


def test_sagemaker_lines_of_both_hosts_are_told(pair):
    assert {line.source for line in pair.lines} == {"algo-1", "algo-2"}
    assert [line.text for line in pair.followed if line.source == "algo-1"] == [
        line.text for line in pair.lines if line.source == "algo-1"
    ]


def test_sagemaker_bill_is_of_both_hosts(pair, harness):
    [job] = harness.jobs(pair.handle.job_name)
    assert pair.end.billable_seconds == 2 * job.description()["BillableTimeInSeconds"]


def test_sagemaker_one_host_killed_fails_the_job(harness):
    job = two(harness, "halved", steps=harness.long_steps)
    watch = Watch(harness, start(harness, job))
    watch.to_step(harness.cut_step)
    harness.last(watch.handle).kill(host=1)
    run = watch.finish(job)
    assert run.end.state is State.FAILED
    assert run.end.reason not in (None, Reason.USER, Reason.BAD_DATA)
    assert run.end.message
