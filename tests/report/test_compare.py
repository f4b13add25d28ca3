"""Jobs side by side: the paired interval is the verdict's, and only the same rows are paired."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from launcher.report import finished
from launcher.report.compare import compare
from tests.end_to_end.conftest import Run
from tests.tiny_model import tasks


@pytest.fixture(scope="module")
def untuned(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job as if nothing had been tuned: its baseline answers the same rows."""
    folder = tmp_path_factory.mktemp("untuned") / "out"
    shutil.copytree(hostile / "out", folder)
    (folder / "predictions" / "tuned.jsonl").unlink()
    result = json.loads((folder / "result.json").read_text())
    del result["evaluations"]["tuned"]
    (folder / "result.json").write_text(json.dumps(result | {"job": "untuned-00000000"}))
    return folder


def test_the_paired_interval_is_that_of_the_verdict(hostile: Path, untuned: Path) -> None:
    verdict = json.loads((hostile / "out" / "result.json").read_text())["verdict"]
    made = compare([finished.read(hostile / "out", None), finished.read(untuned, None)])
    (pair,) = made.pairs
    assert pair.difference == pytest.approx(verdict["difference"])
    # The job's own interval has fewer resamples.
    assert pair.ci95 == pytest.approx(verdict["ci95"], abs=0.08)
    clear = verdict["outcome"] in ("improved", "degraded")
    assert (pair.better is not None) == clear


def test_the_command_tells_and_writes_a_page(hostile: Path, untuned: Path, ftlaunch: Run, tmp_path: Path) -> None:
    done = ftlaunch("compare", hostile, untuned, hostile / "out", "--output", tmp_path / "page.html", "--json")
    told = json.loads(done.stdout)
    assert told["jobs"][0]["answered_by"] == "tuned"
    assert len(told["pairs"]) == 3
    assert told["pairs"][1]["difference"] == 0
    text = (tmp_path / "page.html").read_text()
    assert text.count("<svg") == 1
    assert "<script" not in text
    assert "base model" not in text  # it would push the cost out of a narrow window, and is said once
    assert text.count("All of ") == 1
    shown = ftlaunch("compare", hostile, untuned).stdout
    assert "minus" in shown
    assert "$0.00, expected $0.00" in shown  # of the job that is on record; of the other nothing is known
    assert "not known" in shown
    assert told["differences"] == {}


def test_other_rows_are_not_paired_and_other_metrics_not_compared(hostile: Path, ftlaunch: Run, tmp_path: Path) -> None:
    other = tmp_path / "out"
    shutil.copytree(hostile / "out", other)
    rows = tasks.read_jsonl(other / "predictions" / "tuned.jsonl")
    tasks.write_jsonl(other / "predictions" / "tuned.jsonl", rows[::-1])
    (pair,) = json.loads(ftlaunch("compare", hostile, other, "--json").stdout)["pairs"]
    assert (pair["difference"], pair["why_not"]) == (None, "they did not answer the same test rows")
    result = json.loads((other / "result.json").read_text())
    result["task"]["metric"] = "accuracy"
    (other / "result.json").write_text(json.dumps(result))
    assert "not judged alike" in ftlaunch("compare", hostile, other, code=2).stderr
