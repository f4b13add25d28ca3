"""Questions, instructions, plain completion, baselines alone and `try`: each through the command to its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import MODEL, tasks

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"train": 60, "validation": 16, "test": 24}


def job(folder: Path, task: str, **sections: dict[str, Any]) -> Path:
    """A job on rows of a task; its metrics are generated answers, kept short."""
    columns = {"prompt": "instruction", "completion": "output", "input": "input"} if task == "instruction" else {}
    made = tasks.qa if task == "qa" else tasks.instructions
    for split, rows in tasks.splits(made, 0, SIZES).items():
        if task == "completion":
            rows = [{"id": row["id"], "text": row["output"]} for row in rows]
        tasks.write_jsonl(folder / f"{split}.jsonl", rows)
    short = {} if task == "completion" else {"max_new_tokens": 16}
    return write_job(
        folder, **{"task": {"type": task, **short}, "data": {"columns": columns}, "train": {"epochs": 1.0}} | sections
    )


METRICS = {
    "qa": {"f1", "exact_match", "perplexity"},
    "instruction": {"rouge_l", "chrf", "perplexity"},
    "completion": {"perplexity"},
}


@pytest.mark.parametrize("task", METRICS)
def test_a_job_of_every_task_ends_with_its_metrics_and_a_verdict(ftlaunch: Run, tmp_path: Path, task: str) -> None:
    output, result = run_job(ftlaunch, job(tmp_path / task, task))
    assert result["verdict"]["outcome"] in ("improved", "degraded", "inconclusive")
    assert set(result["evaluations"]) == {"zero_shot", "few_shot", "tuned"}
    for name, entry in result["evaluations"].items():
        assert set(entry["metrics"]) == METRICS[task]
        rows = [json.loads(line) for line in (output / "predictions" / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == SIZES["test"]
        for metric in METRICS[task] - {"perplexity"}:
            assert entry["metrics"][metric] == pytest.approx(sum(row[metric] for row in rows) / len(rows))
    before, after = (result["evaluations"][name]["metrics"]["perplexity"] for name in ("zero_shot", "tuned"))
    assert after < before


@pytest.mark.parametrize(("name", "task"), [("qa", "qa"), ("instructions", "instruction")])
def test_the_examples_run(ftlaunch: Run, tmp_path: Path, name: str, task: str) -> None:
    """The repository's own job files as they stand, but for a smaller model and fewer rows."""
    smaller = {"model.id": MODEL, "data.max_rows": 24, "train.max_steps": 3, "task.max_new_tokens": 8}
    sets = [part for key, value in smaller.items() for part in ("--set", f"{key}={value}")]
    assert json.loads(ftlaunch("check", EXAMPLES / name, "--json", *sets).stdout)["ok"]
    done = ftlaunch("run", EXAMPLES / name, *sets, "--json", "--output", tmp_path / "out")
    assert json.loads(done.stdout)["state"] == "SUCCEEDED"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["task"]["type"] == task
    assert result["evaluations"]["tuned"]["n"] == 24
    assert result["training"]["steps"] == 3
    for file in ("LICENSE", "README.md"):
        assert "WordNet" in (EXAMPLES / name / file).read_text()


def test_baselines_alone_train_nothing(ftlaunch: Run, tmp_path: Path) -> None:
    folder = write_job(tasks.write(tmp_path / "alone", "colours", train=45, validation=15, test=30))
    done = ftlaunch("baseline", folder, "--json")
    found = json.loads(done.stdout)
    assert set(found["evaluations"]) == {"classical", "zero_shot", "few_shot"}
    assert not list(tmp_path.rglob("adapter_model.safetensors"))


def test_base_and_tuned_model_are_asked_side_by_side(ftlaunch: Run, tmp_path: Path) -> None:
    folder = write_job(tasks.write(tmp_path / "asked", "colours", train=90, validation=30, test=60))
    _, result = run_job(ftlaunch, folder)
    told = json.loads(ftlaunch("try", result["job"], "The dog sat by the door.", "--json").stdout)
    assert {"base", "tuned"} <= set(told)
    assert told["tuned"]["text"] in ("green", "red", "blue")
