"""A page as its reader sees it."""

from __future__ import annotations

import html
import re


def section(text: str, name: str) -> str:
    """The HTML of one section."""
    return text.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def shown(part: str) -> str:
    """The words that a browser would show of a part of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"</?(bdi|strong)\b[^>]*>", "", part))).split())


def rows(part: str) -> list[list[str]]:
    """The cells of all tables, row by row."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", part, re.DOTALL)
    return [[shown(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in found]


def items(part: str) -> list[str]:
    """The items of all lists."""
    return [shown(item) for item in re.findall(r"<li>(.*?)</li>", part, re.DOTALL)]


def measured(evaluation: dict, metric: str) -> list[str]:
    """A metric and its interval as the pages write them."""
    low, high = evaluation["ci95"][metric]
    return [f"{evaluation['metrics'][metric]:.3f}", f"{low:.3f} to {high:.3f}"]
