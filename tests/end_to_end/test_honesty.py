"""Worse is said to be worse: real training runs through the command whose right verdict is known beforehand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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
    written = Path(ftlaunch("report", output, "--output", folder / "page.html").stdout.strip()).read_text()
    assert re.search(r"<main>\s*<header class=\"degraded\">\s*<h1>Tuning made it worse</h1>", written)


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


def codes(ftlaunch: Run, folder: Path, code: int | None = None) -> dict[str, dict[str, Any]]:
    report = json.loads(ftlaunch("check", write_job(folder), "--json", code=code).stdout)
    return {finding["code"]: finding for finding in report["findings"]}


PLANTED = {
    "shortcut_token": {"shortcut": "animal"},
    "leak": {"leaked": 5},
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(ftlaunch: Run, tmp_path: Path, fault: str) -> None:
    assert fault in codes(ftlaunch, tasks.write(tmp_path / fault, "sorts", **PLANTED[fault]))


DEFINITIONS = Path(__file__).parents[2] / "examples" / "definitions"


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_flipped_labels_are_found_in_real_data_and_none_where_there_are_none(
    ftlaunch: Run, tmp_path: Path, share: float
) -> None:
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (DEFINITIONS / f"{split}.jsonl").read_text().splitlines()]
        if split == "train":
            rows, flipped = tasks.flip_labels(rows, share, seed=1)
        tasks.write_jsonl(tmp_path / f"{split}.jsonl", rows)
    finding = codes(ftlaunch, tmp_path, code=0).get("suspect_label")
    assert (finding is not None) == bool(flipped)


def test_clean_data_raises_none_of_them(ftlaunch: Run, tmp_path: Path) -> None:
    found = codes(ftlaunch, tasks.write(tmp_path / "clean", "sorts"), code=0)
    assert not found.keys() & {*PLANTED, "suspect_label"}
