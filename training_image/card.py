"""The model card, ``README.md`` beside the adapter, in the hub's format: the verdict first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from training_image.spec import Spec


def model_card(result: Mapping[str, Any], spec: Spec, environment: Mapping[str, Any]) -> str:
    """Markdown with the hub's YAML head. ``result`` as in result.json."""
    metric = spec.task.metric_name
    head = {"library_name": "peft", "base_model": result["model"]["id"], "tags": ["lora", "ftlaunch", spec.task.type]}
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {result['job']}",
        f"**{result['verdict']['outcome'].replace('_', ' ').capitalize()}.** {result['verdict']['text']}",
        _evaluations(result["evaluations"], metric),
        _data(result["data"]),
        _section("Guards", [f"- {g['code']}: {g['evidence']}. {g['hint']}" for g in result["guards"]]),
        _section("Settings", [f"- {name}: {value}" for name, value in result["settings"].items()]),
        _section("Versions", [f"- {name} {version}" for name, version in environment["packages"].items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _evaluations(evaluations: Mapping[str, Any], metric: str) -> str:
    rows = [f"| evaluation | n | {metric} | 95 % interval |", "|---|---|---|---|"]
    for name, entry in evaluations.items():
        low, high = entry["ci95"][metric]
        bounds = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        value = entry["metrics"][metric]
        rows.append(f"| {name} | {entry['n']} | {'' if value is None else f'{value:.3f}'} | {bounds} |")
    return "## Evaluation\n\n" + "\n".join(rows)


def _data(data: Mapping[str, Any]) -> str:
    rows = ["| split | rows | used | dropped |", "|---|---|---|---|"]
    for name, counts in data.items():
        dropped = ", ".join(f"{reason} {n}" for reason, n in counts["dropped"].items()) or "none"
        rows.append(f"| {name} | {counts['rows']} | {counts['used']} | {dropped} |")
    return "## Data\n\n" + "\n".join(rows)


def _section(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""
