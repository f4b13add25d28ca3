"""The page of a finished job: what it shows, and that nothing in the data can run in it or break it."""

from __future__ import annotations

import copy
import dataclasses
import html
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
from tests.report.conftest import HOSTILE, Open

SECTIONS = ["evaluations", "curves", "guards", "confusion", "changes", "slices", "data", "cost", "repeat"]


@pytest.fixture(scope="module")
def written(hostile: Path, ftlaunch: Run) -> Path:
    told = ftlaunch("report", hostile, "--output", hostile / "page.html", "--json").stdout
    return Path(json.loads(told)["page"])


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


def test_the_examples_that_changed_most_are_those(hostile: Path) -> None:
    job = finished.read(hostile / "out", None)
    changes = most_changed(job, most=5)
    assert changes is not None
    before, after = (job.predictions[name] for name in (job.best_baseline, "tuned"))
    gains = sorted(
        two["probabilities"][two["reference"]] - one["probabilities"][one["reference"]]
        for one, two in zip(before, after, strict=True)
    )
    assert [each.gain for each in changes.better] == [gain for gain in gains[::-1][:5] if gain > 0]
    assert [each.gain for each in changes.worse] == [gain for gain in gains[:5] if gain < 0]
    assert any(each.input.startswith(HOSTILE[0]) for each in most_changed(job, most=24).better)


def test_in_a_real_browser_nothing_runs_and_nothing_breaks(written: Path, opened: Open, tmp_path: Path) -> None:
    """Opened without the policy that forbids scripts, so that escaping alone has to hold; and at a phone's width."""
    text = written.read_text(encoding="utf-8")
    probe = (
        "<script>document.body.dataset.told = JSON.stringify([document.title, document.querySelectorAll('section')"
        ".length, document.querySelectorAll('h1').length, document.documentElement.scrollWidth, innerWidth])</script>"
    )
    bare = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    assert bare != text
    copied = tmp_path / "page.html"
    copied.write_text(bare.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    for width in (1000, 500):
        told = re.search(r'data-told="([^"]*)"', opened(copied, width=width))
        assert told is not None
        title, sections, heads, content, window = json.loads(html.unescape(told[1]))
        assert "owned" not in title
        assert (sections, heads) == (len(SECTIONS), 1)
        assert content <= window <= width


def test_with_its_policy_no_script_runs_even_if_one_stood_there(written: Path, opened: Open, tmp_path: Path) -> None:
    text = written.read_text(encoding="utf-8").replace("</body>", "<script>document.title='owned'</script></body>")
    copied = tmp_path / "page.html"
    copied.write_text(text, encoding="utf-8")
    assert "<title>owned" not in opened(copied)


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

    def shown(**more: Any) -> list[str]:
        with_record = dataclasses.replace(job, record=dataclasses.replace(record, **more))
        page_text = page.page(with_record, [], "")
        cells = re.findall(
            r"<td[^>]*>(.*?)</td>", page_text.partition('<section id="cost">')[2].partition("</table")[0]
        )
        return [cells[place : place + 4] for place in range(0, len(cells), 4)]

    assert shown(actual_usd=4.5, billable_seconds=7200.0) == [
        ["cost", "$2.00 ($1.00 to $4.00)", "$4.50", "above the range"],
        ["billed time", "60.0 min (30.0 min to 2.0 h)", "60.0 min", "inside the range"],  # of each of two machines
        ["training", "12.0 min (6.0 min to 24.0 min)", "15.0 min", "inside the range"],
    ]
    assert shown(actual_usd=None, billable_seconds=600.0)[0][2:] == ["not known", ""]
    unpriced = shown(estimate=estimate | {"usd": None}, actual_usd=None)
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
