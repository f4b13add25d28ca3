"""The table of the evaluations and the verdict, from ``result.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

NAMES = {"classical": "classical", "zero_shot": "zero-shot", "few_shot": "few-shot", "tuned": "tuned"}


def show(folder: Path) -> None:
    """Print what the job's evaluations gave, the verdict in words, and where the results are."""
    path = folder / "result.json"
    if path.is_file():
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _table(result)
        verdict = result.get("verdict") or {}
        if verdict:
            click.echo(f"\nverdict: {verdict['outcome']}. {verdict.get('text', '')}".rstrip())
        for guard in result.get("guards") or []:
            hint = f" ({guard['hint']})" if guard.get("hint") else ""
            click.echo(f"note: {guard['code']}: {guard['evidence']}{hint}")
    click.echo(f"results: {folder}")


def _table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    evaluations = {name: result["evaluations"][name] for name in NAMES if result["evaluations"].get(name)}
    metric = result["task"]["metric"]
    others = [name for each in evaluations.values() for name in each["metrics"] if name != metric]
    columns = [metric, *dict.fromkeys(others)][:4]
    table = Table(title=f"{result['job']}: {result['model']['id']} on {result['task']['type']}", title_justify="left")
    table.add_column("")
    table.add_column("n", justify="right")
    for name in columns:
        table.add_column(f"{name} (95 % interval)" if name == metric else name, justify="right")
    table.add_column("seconds", justify="right")
    for name, each in evaluations.items():
        shots = f" (k={each['k']})" if each.get("k") else ""
        cells = [_cell(each, column) for column in columns]
        table.add_row(NAMES[name] + shots, str(each["n"]), *cells, f"{each.get('seconds', 0):.1f}")
    Console().print(table)


def _cell(evaluation: dict[str, Any], metric: str) -> str:
    value = evaluation["metrics"].get(metric)
    if value is None:
        return "-"
    interval = evaluation.get("ci95", {}).get(metric)
    text = f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text
