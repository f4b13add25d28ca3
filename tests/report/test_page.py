"""The page of a finished job: what it shows, and that nothing in the data can run in it or break it."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.report import finished, page
from launcher.report.changes import most_changed
from launcher.store import Record
from tests.end_to_end.conftest import Run
from tests.report.conftest import HOSTILE
from tests.report.reading import items, measured, rows, section, shown

SECTIONS = ["evaluations", "curves", "guards", "confusion", "changes", "slices", "data", "cost", "repeat"]


@pytest.fixture(scope="module")
def context(hostile: Path) -> dict[str, Any]:
    return page.context(finished.read(hostile / "out", None)) | {"findings": [], "unchecked": ""}


class Reader(HTMLParser):
    """Collects what a browser would act on, and the text that it would show."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.shown: list[str] = []
        self.sections: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("src", "href", "xlink:href", "action") if name in given]
        if tag == "section":
            self.sections.append(given.get("id") or "")

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def test_the_page_has_every_part_and_asks_for_nothing(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    found = Reader(text)
    assert found.sections == SECTIONS
    assert all(address.startswith("#") for address in found.addresses)
    assert not found.tags & {"script", "link", "iframe", "object", "img", "form", "base"}
    assert not re.search(r"@import|url\((?!#)", text)
    assert text.count("<svg") == 3
    assert "prefers-color-scheme: dark" in text


def test_the_verdict_comes_first(written: Path, hostile: Path) -> None:
    verdict = json.loads((hostile / "out" / "result.json").read_text())["verdict"]
    shown = " ".join(Reader(written.read_text(encoding="utf-8").partition("<main>")[2]).shown).split()
    headline = page.HEADLINES[verdict["outcome"]].split()
    assert shown[: len(headline)] == headline
    assert verdict["text"].split()[:6] == shown[len(headline) : len(headline) + 6]


def test_the_evaluations_are_those_of_the_result(written: Path, hostile: Path) -> None:
    result = json.loads((hostile / "out" / "result.json").read_text())
    part = section(written.read_text(encoding="utf-8"), "evaluations")
    told = {row[0].split(" (")[0]: row[1:3] for row in rows(part)[1:]}
    assert told == {
        finished.NAMES[name]: measured(each, "macro_f1") for name, each in result["evaluations"].items() if each
    }
    low, high = result["verdict"]["ci95"]
    difference = f"{result['verdict']['difference']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"
    assert f"Tuned minus {finished.NAMES[result['verdict']['baseline']]}: {difference}" in shown(part)


def test_the_confusion_cells_are_those_of_the_result(written: Path, hostile: Path) -> None:
    result = json.loads((hostile / "out" / "result.json").read_text())
    before, after = (result["evaluations"][name] for name in (result["verdict"]["baseline"], "tuned"))
    told = [row for row in rows(section(written.read_text(encoding="utf-8"), "confusion")) if row[0][:4] != "true"]
    expected = [[str(count or "") for count in row] for row in [*before["confusion"], *after["confusion"]]]
    assert [row[1:] for row in told] == expected
    assert [row[0] for row in told] == [page.clean(label) for label in [*before["labels"], *after["labels"]]]


def test_the_ten_examples_that_changed_most_each_way_are_those(written: Path, hostile: Path) -> None:
    job = finished.read(hostile / "out", None)
    before, after = (job.predictions[name] for name in (job.best_baseline, "tuned"))
    gains = sorted(
        two["probabilities"][two["reference"]] - one["probabilities"][one["reference"]]
        for one, two in zip(before, after, strict=True)
    )
    better, worse = [gain for gain in gains[::-1] if gain > 0], [gain for gain in gains if gain < 0]
    assert max(len(better), len(worse)) > 10
    told = rows(section(written.read_text(encoding="utf-8"), "changes"))
    changes = [row[4] for row in told if row[4] != "change"]
    assert changes == [f"{gain:+.3f}" for gain in [*better[:10], *worse[:10]]]
    assert any(each.input.startswith(HOSTILE[0]) for each in most_changed(job, most=24).better)


def test_the_groups_and_the_worst_gap_are_those_of_the_result(written: Path, hostile: Path) -> None:
    groups = json.loads((hostile / "out" / "result.json").read_text())["slices"]["source"]
    part = section(written.read_text(encoding="utf-8"), "slices")
    assert {row[0]: row[5] for row in rows(part)[1:]} == {
        group: " ".join(measured(each["tuned"], "macro_f1")) for group, each in groups.items()
    }
    values = {group: each["tuned"]["metrics"]["macro_f1"] for group, each in groups.items()}
    worst, best = (choose(values, key=values.__getitem__) for choose in (min, max))
    gap = f"{values[best] - values[worst]:.3f}"
    assert f"The worst gap: {worst} lies {gap} behind {best} (macro f1)." in shown(part)


def test_guards_and_what_was_forgotten_are_told(written: Path, hostile: Path) -> None:
    assert "no sign" in shown(section(written.read_text(encoding="utf-8"), "guards"))
    job = finished.read(hostile / "out", None)
    job.result["guards"] = [{"code": "loss_spike", "evidence": "9 at step 3", "hint": "Lower the rate."}]
    job.result["forgetting"] = {"before": 2.0, "after": 2.75, "unit": "nats a token"}
    told = section(page.page(job, [], ""), "guards")
    assert items(told) == ["loss spike: 9 at step 3. Lower the rate."]
    assert "2.000 before, 2.750 after (nats a token): much was forgotten" in shown(told)


def test_the_findings_are_those_of_the_check_as_long_as_the_rows_are(
    written: Path, hostile: Path, ftlaunch: Run, tmp_path: Path
) -> None:
    found = json.loads(ftlaunch("check", hostile, "--json", code=None).stdout)["findings"]
    assert found
    texts = [
        f"{each['level']}, {page.words(each['code'])}: {page.clean(each['message'])} {page.clean(each['hint'] or '')}"
        for each in found
    ]
    assert items(section(written.read_text(encoding="utf-8"), "data")) == [" ".join(text.split()) for text in texts]
    train = hostile / "train.jsonl"
    unchanged = train.read_bytes()
    try:
        train.write_bytes(unchanged + unchanged.splitlines(keepends=True)[0])
        ftlaunch("report", hostile, "--output", tmp_path / "page.html")
    finally:
        train.write_bytes(unchanged)
    told = section((tmp_path / "page.html").read_text(encoding="utf-8"), "data")
    assert "not checked: the files have changed since the job ran" in shown(told)
    assert items(told) == []


def test_the_estimate_stands_beside_what_came(hostile: Path, written: Path) -> None:
    assert "expected at submit" in written.read_text(encoding="utf-8")
    estimate = {
        "machine": "ml.g5.2xlarge", "machines": 2, "usd": {"low": 1.0, "expected": 2.0, "high": 4.0}, "rests_on": "L4",
        "billed_hours": {"low": 0.5, "expected": 1.0, "high": 2.0}, "price": {"kind": "live", "as_of": "2026-11-20"},
        "hours": {"train": {"low": 0.1, "expected": 0.2, "high": 0.4}},
    }  # fmt: skip
    record = Record("a", "c", 0, "sagemaker", "", "", None, "", estimate=estimate, estimate_usd=2.0)
    job = finished.read(hostile / "out", None)
    job.result["training"]["seconds"] = 900.0

    def beside(**more: Any) -> list[list[str]]:
        with_record = dataclasses.replace(job, record=dataclasses.replace(record, **more))
        return [row for row in rows(section(page.page(with_record, [], ""), "cost")) if row[0]][:3]

    assert beside(actual_usd=4.5, billable_seconds=7200.0) == [
        ["cost", "$2.00 ($1.00 to $4.00)", "$4.50", "above the range"],
        ["billed time", "60.0 min (30.0 min to 2.0 h)", "60.0 min", "inside the range"],  # of each of two machines
        ["training", "12.0 min (6.0 min to 24.0 min)", "15.0 min", "inside the range"],
    ]
    assert beside(actual_usd=None, billable_seconds=600.0)[0][2:] == ["not known", ""]
    unpriced = beside(estimate=estimate | {"usd": None}, actual_usd=None)
    assert unpriced[0] == ["cost", "not known", "not known", ""]


def test_the_memory_of_the_whole_process_is_foretold(hostile: Path, ftlaunch: Run) -> None:
    name = json.loads((hostile / "out" / "result.json").read_text())["job"]
    (job,) = [each for each in json.loads(ftlaunch("jobs", "--cost", "--json").stdout) if each["job"] == name]
    peak = json.loads((hostile / "out" / "result.json").read_text())["training"]["peak_memory_bytes"]
    assert job["estimate"]["fit"]["needed_gib"] == pytest.approx(peak / 2**30, rel=0.15)


anything = st.text(alphabet=st.characters(), max_size=40) | st.sampled_from(HOSTILE)


@settings(max_examples=60)
@given(first=anything, second=anything, third=anything)
def test_no_text_changes_what_the_page_is_made_of(context: dict[str, Any], first: str, second: str, third: str) -> None:
    plain, hurt = Reader(page.render("job.html.j2", **context)), copy.deepcopy(context)
    hurt["verdict"] = context["verdict"] | {"text": first}
    hurt["result"] = context["result"] | {
        "verdict": hurt["verdict"],
        "model": context["result"]["model"] | {"id": second},
        "guards": [{"code": "overfitting", "evidence": third, "hint": first}],
    }
    worst = dataclasses.replace(context["changes"].worse[0], input=first, reference=second, before=third, after=first)
    hurt["changes"] = dataclasses.replace(context["changes"], worse=[worst])
    for matrix in hurt["confusions"].values():
        matrix["labels"] = [first, second, third]
    hurt["findings"] = [{"level": "warning", "code": "drift", "message": second, "hint": third}]
    text = page.render("job.html.j2", **hurt)
    found = Reader(text)
    assert found.sections == plain.sections
    assert found.tags <= plain.tags | {"ul", "li", "strong"}
    assert found.attributes <= plain.attributes
    for given_text in (first, second, third):
        assert " ".join(page.clean(given_text).split()) in " ".join("".join(found.shown).split())


@given(st.text(alphabet=st.characters(), max_size=2000))
def test_a_cleaned_text_can_always_be_written_and_is_short(text: str) -> None:
    kept = page.clean(text)
    assert len(kept) <= page.LONGEST + 1
    assert all(letter.isprintable() or letter in "\n\t" for letter in kept)
    kept.encode("utf-8")


def test_a_page_takes_little_time(hostile: Path) -> None:
    page.page(finished.read(hostile / "out", None), [], "")  # loads the drawing library
    start = time.process_time()
    page.page(finished.read(hostile / "out", None), [], "")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("broken", ["result.json", "metrics.jsonl", "predictions/tuned.jsonl"])
def test_broken_results_are_told_in_words(hostile: Path, ftlaunch: Run, tmp_path: Path, broken: str) -> None:
    import shutil

    folder = tmp_path / "out"
    shutil.copytree(hostile / "out", folder)
    (folder / broken).write_text('{"cut off')
    assert "broken" in ftlaunch("report", folder, code=2).stderr
