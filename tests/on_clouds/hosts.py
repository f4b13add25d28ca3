"""Two machines for one job: what holds on every cloud."""

import json
from pathlib import Path

import pytest

from backends.conformance.jobs import Prepared, Run, Watch, prepare, start
from backends.interface import Reason, Resources, State


def two(harness, kind: str, **variant) -> Prepared:
    job = prepare(harness, kind, **variant)
    resources = Resources(machine=harness.runs.small.resources.machine, machines=2)
    submission = job.submission.model_copy(update={"resources": resources})
    return Prepared(submission, harness.fresh().plan(submission), job.files)


def pair(harness) -> Run:
    """The small job on two machines, to its end."""
    job = two(harness, "pair")
    run = Watch(harness, start(harness, job)).finish(job)
    assert run.end.state is State.SUCCEEDED, (run.end, [line.text for line in run.lines][-20:])
    return run


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


def check_same_training(harness, run: Run) -> None:
    """One adapter, after the steps and with the losses of the same job on one machine."""
    folder = harness.runs.fetch(run.handle, "pair")
    alone, together = losses(harness.runs.output), losses(folder)
    assert len(alone) == len(together)
    assert together == pytest.approx(alone, rel=1e-3)
    assert len(list(folder.rglob("adapter_model.safetensors"))) == 1
    assert json.loads((folder / "result.json").read_text())["training"]["steps"] == 6


def check_one_killed_fails(harness, monkeypatch) -> str:
    """A machine that dies ends the job on the other one; gives the job's name."""
    monkeypatch.setattr(harness.cloud, "grace_seconds", 3.0)  # the other one waits for its peer, and hears no signal
    job = two(harness, "halved", steps=harness.long_steps)
    watch = Watch(harness, start(harness, job))
    watch.to_step(harness.cut_step)
    harness.last(watch.handle).kill(host=1)
    run = watch.finish(job)
    assert run.end.state is State.FAILED
    assert run.end.reason not in (None, Reason.USER, Reason.BAD_DATA)
    assert run.end.message
    return job.plan.job_name
