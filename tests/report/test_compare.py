"""Jobs side by side: the paired interval is the verdict's, and only the same rows are paired."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from launcher.report import finished
from launcher.report.compare import compare
from tests.end_to_end.conftest import Run
from tests.report.conftest import HOSTILE
from tests.report.reading import items, measured, rows, section
from tests.tiny_model import tasks


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
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert "base model" not in text  # it would push the cost out of a narrow window, and is said once
    assert text.count("All of ") == 1
    shown = ftlaunch("compare", hostile, untuned).stdout
    assert "minus" in shown
    assert "$0.00, expected $0.00" in shown  # of the job that is on record; of the other nothing is known
    assert "not known" in shown
    assert told["differences"] == {}
    assert told["jobs"][1]["guards"] is None
    assert told["jobs"][0]["worst_gap"]["column"] == "source"
    tuned = json.loads((hostile / "out" / "result.json").read_text())["evaluations"]["tuned"]
    value, between = measured(tuned, "macro_f1")
    assert f"{value} ({between})" in shown
    assert shown.count("the worst gap") == 2


def test_the_page_has_the_parts_of_each_job(three_jobs: list[finished.Finished], side_by_side: Path) -> None:
    text = side_by_side.read_text(encoding="utf-8")
    tuned, untuned, guarded = (job.result["job"] for job in three_jobs)
    told = {row[0]: row[1:] for row in rows(section(text, "evaluations"))}
    assert told["job"] == ["classical", "zero-shot", "few-shot", "tuned"]
    for job in three_jobs:
        cells = [" ".join(measured(each, "macro_f1")) for each in job.evaluations.values()]
        assert told[job.result["job"]] == cells + ["-"] * (4 - len(cells))
    curves = section(text, "curves")
    assert curves.count("<svg") == 2
    assert (curves.count(tuned), curves.count(untuned), curves.count(guarded)) == (2, 0, 2)
    assert {"var(--two)", "var(--four)"} <= set(re.findall(r"stroke: (var\(--\w+\))", curves))
    assert items(section(text, "guards")) == [
        f"{tuned}: no sign of a training that went wrong.",
        f"{untuned}: nothing was trained.",
        f"{guarded}: overfitting: {HOSTILE[0]}. {HOSTILE[2]}",
    ]
    slices = section(text, "slices")
    for job, gap in zip(three_jobs, items(slices), strict=True):
        name = "tuned" if "tuned" in job.evaluations else job.best_baseline
        values = [each[name]["metrics"]["macro_f1"] for each in job.result["slices"]["source"].values()]
        assert gap.startswith(f"{job.result['job']}: the worst gap is that ")
        assert f" lies {max(values) - min(values):.3f} behind " in gap
    groups = three_jobs[0].result["slices"]["source"]
    assert {row[0]: row[1] for row in rows(slices)[1:]} == {
        group: " ".join(measured(each["tuned"], "macro_f1")) for group, each in groups.items()
    }


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
