"""The model card, ``README.md`` beside the adapter, in the hub's format: the verdict first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from training_image.spec import Spec

_HUB_TASKS = {"classification": "text-classification", "qa": "question-answering"}
"""The hub's own names of task types; the others generate text."""


def model_card(result: Mapping[str, Any], spec: Spec, environment: Mapping[str, Any]) -> str:
    """Markdown with the hub's YAML head. ``result`` as in result.json, ``environment`` as in manifest.json."""
    metric = spec.task.metric_name
    parts = [
        f"---\n{_head(result, spec)}\n---",
        f"# {result['job']}",
        f"**{result['verdict']['outcome'].replace('_', ' ').capitalize()}.** {result['verdict']['text']}",
        _evaluations(result["evaluations"], metric),
        _forgetting(result["forgetting"]),
        _data(result["data"]),
        _provenance(result, spec, environment),
        _section("Guards", [f"- {g['code']}: {g['evidence']}. {g['hint']}" for g in result["guards"]]),
        _section("Settings", [f"- {name}: {value}" for name, value in result["settings"].items()]),
        _section("Versions", [f"- {name} {version}" for name, version in _versions(environment).items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(result: Mapping[str, Any], spec: Spec) -> str:
    """The hub's metadata; a base model that is a folder here has no place in it, nor have rows that are files here."""
    base, train = result["model"]["id"], spec.data.train
    metric, task = spec.task.metric_name, _HUB_TASKS.get(spec.task.type, "text-generation")
    value = (result["evaluations"].get("tuned") or {}).get("metrics", {}).get(metric)
    source = train.removeprefix("hub:") if train.startswith("hub:") else None
    scores = [
        EvalResult(
            task_type=task,
            dataset_type=source or "custom",
            dataset_name=f"test rows of {result['job']}",
            metric_type=metric,
            metric_value=value,
        )
    ]
    known = value is not None and math.isfinite(value)
    head = ModelCardData(
        library_name="peft",
        base_model=None if base.startswith("/") else base,
        datasets=None if source is None else [source.partition(":")[0]],
        tags=["lora", "ftlaunch", spec.task.type],
        pipeline_tag=task,
        model_name=result["job"] if known else None,
        eval_results=scores if known else None,
    )
    return str(head.to_yaml())


def _evaluations(evaluations: Mapping[str, Any], metric: str) -> str:
    rows = [f"| evaluation | n | {metric} | 95 % interval |", "|---|---|---|---|"]
    for name, entry in evaluations.items():
        low, high = entry["ci95"][metric]
        bounds = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        value = entry["metrics"][metric]
        rows.append(f"| {name} | {entry['n']} | {'' if value is None else f'{value:.3f}'} | {bounds} |")
    return "## Evaluation\n\n" + "\n".join(rows)


def _forgetting(losses: Mapping[str, Any] | None) -> str:
    if losses is None:
        return ""
    return f"Loss on a general text: {losses['before']:.2f} before, {losses['after']:.2f} after ({losses['unit']})."


def _data(data: Mapping[str, Any]) -> str:
    rows = ["| split | rows | used | dropped |", "|---|---|---|---|"]
    for name, counts in data.items():
        dropped = ", ".join(f"{reason} {n}" for reason, n in counts["dropped"].items()) or "none"
        rows.append(f"| {name} | {counts['rows']} | {counts['used']} | {dropped} |")
    return "## Data\n\n" + "\n".join(rows)


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    return {"python": environment["python"], **environment["packages"]}


def _provenance(result: Mapping[str, Any], spec: Spec, environment: Mapping[str, Any]) -> str:
    """Which base, which rows, byte for byte, and how they came into their splits."""
    model, data = result["model"], spec.data
    lines = [f"- base model: {model['id']}" + (f" @ {model['revision']}" if model["revision"] else "")]
    sources = {"train": data.train, "validation": data.validation, "test": data.test}
    for split, source in sources.items():
        if source is None:
            lines.append(f"- {split}: split off the training rows by hash")
        else:
            digest = environment["data"].get(source)
            lines.append(f"- {split}: {source}" + (f", sha256 {digest}" if digest else ""))
    lines.append(f"- made by ftlaunch, job {result['job']}, seed {result['seed']}")
    return _section("Provenance", lines)


def _section(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""
