"""Worse is said to be worse: real training runs through the command whose right verdict is known beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import tasks


def test_shuffled_labels_do_not_improve(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "shuffled", "colours", train=150, validation=45, test=120, shuffled=True)
    _, result = run_job(ftlaunch, write_job(folder))
    assert result["verdict"]["outcome"] in ("inconclusive", "degraded")


def test_a_competent_base_tuned_on_shuffled_labels_is_degraded(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "harmful", "sorts", train=180, validation=60, test=150, shuffled=True)
    # Without early stop: the validation labels are right and would stop the harm.
    output, result = run_job(ftlaunch, write_job(folder, train={"epochs": 4.0, "learning_rate": 0.01, "patience": 0}))
    verdict = result["verdict"]
    assert verdict["outcome"] == "degraded", verdict
    assert verdict["ci95"][1] < 0
    assert "worse" in verdict["text"]
    assert "worse" in (output / "README.md").read_text()


def test_a_good_baseline_ends_the_job_untuned(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "easy", "sorts", train=90, validation=60, test=150, new=0.0)
    output, result = run_job(ftlaunch, write_job(folder, evaluate={"enough": 0.8}))
    assert result["verdict"]["outcome"] == "not_needed"
    assert "tuned" not in result["evaluations"]
    assert not (output / "adapter").exists()


def test_a_group_harmed_by_tuning_is_named(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "harmed", harmed=True)
    _, result = run_job(ftlaunch, write_job(folder, evaluate={"slices": ["source"]}, train={"epochs": 4.0}))
    assert result["verdict"]["outcome"] == "improved", result["verdict"]
    assert "radio" in result["verdict"]["text"]
    radio = result["slices"]["source"]["radio"]
    assert radio["tuned"]["metrics"]["macro_f1"] < radio["zero_shot"]["metrics"]["macro_f1"]


def codes(ftlaunch: Run, folder: Path, code: int | None = None) -> dict[str, dict[str, object]]:
    report = json.loads(ftlaunch("check", write_job(folder), "--json", code=code).stdout)
    return {finding["code"]: finding for finding in report["findings"]}


PLANTED = {
    "suspect_labels": {"flipped": 0.1},
    "shortcut": {"shortcut": "animal"},
    "leak": {"leaked": 5},
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(ftlaunch: Run, tmp_path: Path, fault: str) -> None:
    folder = tasks.write(tmp_path / fault, "sorts", **PLANTED[fault])
    assert fault in codes(ftlaunch, folder)


def test_clean_data_raises_none_of_them(ftlaunch: Run, tmp_path: Path) -> None:
    found = codes(ftlaunch, tasks.write(tmp_path / "clean", "sorts"), code=0)
    assert not found.keys() & PLANTED.keys()
