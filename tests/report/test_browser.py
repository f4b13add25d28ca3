"""Both pages in a real browser: nothing in the data runs, and they can be read on a phone, light and dark."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import Open

PROBE = """<script>document.body.dataset.told = JSON.stringify([document.title,
  document.querySelectorAll("section").length, document.querySelectorAll("h1").length,
  document.documentElement.scrollWidth, innerWidth])</script>"""
PHONE = """<!doctype html><meta name="color-scheme" content="light dark">
<body><iframe src="page.html" style="border: 0; width: 360px; height: 800px"></iframe>
<script>onload = () => {
  const inside = frames[0], root = inside.document.documentElement
  const style = inside.getComputedStyle(inside.document.body)
  document.body.dataset.told = JSON.stringify([inside.matchMedia("(max-width: 30rem)").matches,
    inside.document.querySelectorAll("section").length, root.scrollWidth, root.clientWidth,
    style.backgroundColor, style.color])
}</script>"""
"""Chrome's windows are 500 pixels wide at least; a frame may be narrower."""


@pytest.fixture(params=["written", "side_by_side"])
def page(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param).read_text(encoding="utf-8")


def told(dom: str) -> list[Any]:
    found = re.search(r'data-told="([^"]*)"', dom)
    assert found is not None
    return json.loads(html.unescape(found[1]))


def test_nothing_runs_and_nothing_breaks(page: str, opened: Open, tmp_path: Path) -> None:
    """Opened without the policy that forbids scripts, so that escaping alone has to hold."""
    bare = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    assert bare != page
    copied = tmp_path / "page.html"
    copied.write_text(bare.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    title, sections, heads, content, window = told(opened(copied))
    assert "owned" not in title
    assert (sections, heads) == (page.count("<section id="), 1)
    assert content <= window


def test_with_its_policy_no_script_runs_even_if_one_stood_there(page: str, opened: Open, tmp_path: Path) -> None:
    copied = tmp_path / "page.html"
    copied.write_text(page.replace("</body>", "<script>document.title='owned'</script></body>"), encoding="utf-8")
    assert "<title>owned" not in opened(copied)


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_on_a_phone_nothing_overflows_and_the_colours_are_those_asked_for(
    page: str, opened: Open, tmp_path: Path, scheme: int
) -> None:
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE, encoding="utf-8")
    flags = ("--allow-file-access-from-files", f"--blink-settings=preferredColorScheme={scheme}")
    narrow, sections, content, width, *colours = told(opened(tmp_path / "phone.html", *flags))
    assert narrow
    assert sections == page.count("<section id=")
    assert content <= width <= 360
    ground, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours)
    assert (ground < 60 and ink > 200) if scheme == 0 else (ground > 200 and ink < 60)
