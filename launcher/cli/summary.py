"""The table of the evaluations and the verdict, from ``result.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli import common

if TYPE_CHECKING:
    from rich.table import Table

NAMES = {"classical": "classical", "zero_shot": "zero-shot", "few_shot": "few-shot", "tuned": "tuned"}
MORE = 1
"""Metrics shown beside the one that decides; all stand in result.json."""


def show(folder: Path) -> None:
    """Print what the job's evaluations gave, the verdict in words, and where the results are."""
    from rich.console import Console

    path = folder / "result.json"
    if path.is_file():
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        console = Console(highlight=False)
        console.print(table(result))
        verdict = result.get("verdict") or {}
        told = [f"\nverdict: {verdict['outcome']}. {verdict.get('text', '')}".rstrip()] if verdict else []
        for guard in result.get("guards") or []:
            hint = f" ({guard['hint']})" if guard.get("hint") else ""
            told.append(f"note: {guard['code']}: {guard['evidence']}{hint}")
        for line in told:
            console.print(line, markup=False, soft_wrap=not console.is_terminal)
    click.echo(f"results: {folder}")
    if path.is_file() and (folder / "adapter").is_dir():
        job = result["job"]
        common.say(f"next: ftlaunch report {job}")
        common.say(f"      ftlaunch try {job} 'some text'")
        common.say(f"      ftlaunch export {job} --merged")


def table(result: dict[str, Any]) -> Table:
    """The evaluations of ``result.json``, one a row."""
    from rich.table import Table

    evaluations = {name: result["evaluations"][name] for name in NAMES if result["evaluations"].get(name)}
    metric = result["task"]["metric"]
    others = dict.fromkeys(name for each in evaluations.values() for name in each["metrics"] if name != metric)
    made = Table(title=f"{result['job']}: the same test rows for all", title_justify="left")
    made.add_column("")
    for name in (metric, "95 % interval", *list(others)[:MORE], "n", "seconds"):
        made.add_column(name, justify="right", no_wrap=True)
    for name, each in evaluations.items():
        shots = f" ({each['k']} examples)" if each.get("k") else ""
        low, high = each.get("ci95", {}).get(metric, (None, None))
        between = "-" if low is None or high is None else f"{_short(low)} to {_short(high)}"
        more = [_short(each["metrics"].get(other)) for other in list(others)[:MORE]]
        seconds = f"{each.get('seconds', 0):.1f}"
        made.add_row(NAMES[name] + shots, _short(each["metrics"][metric]), between, *more, str(each["n"]), seconds)
    return made


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"
