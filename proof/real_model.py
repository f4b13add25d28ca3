"""The long walk with the real small model: the demo as a stranger runs it, then everything recomputed by others.

Usage: python -m proof.real_model; exits with 1 where a promise does not hold; writes docs/proof/real-model.md.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from sklearn.metrics import f1_score

from launcher.cli.summary import table
from launcher.demo_model import DEMO_MODEL, made_apart

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "definitions"
SCRIPT = ROOT / "tests" / "end_to_end" / "independent_few_shot.py"
EVALUATIONS = ("classical", "zero_shot", "few_shot", "tuned")
MINUTES, GB, TOLERANCE = 10, 3.0, 0.02
TREE = ("result.json", "metrics.jsonl", "README.md", "job.yaml", "manifest.json")
TREE += ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/tokenizer.json")
TREE += tuple(f"predictions/{name}.jsonl" for name in EVALUATIONS)
"""What lies in `runs/JOB`."""


def main() -> int:
    """Run the demo and the checks; gives the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FTLAUNCH_HOME"] = folder
        began = time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name("ftlaunch"), "demo", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.monotonic() - began
        output = Path(folder, json.loads(done.stdout)["output"])
        result = json.loads((output / "result.json").read_text())
        others = independent(made_apart(), output)
        lines, broken = judge(result, others, predictions(output), seconds)
        broken += missing(output, result["job"])
        picture(result, ROOT / "docs" / "verdict.svg")
    page = ROOT / "docs" / "proof" / "real-model.md"
    page.write_text("\n".join(lines) + "\n")
    print(page.read_text())
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if broken else 0


def picture(result: dict[str, Any], path: Path) -> None:
    """What the terminal shows at the end, as an SVG for the README."""
    console = Console(record=True, width=96, file=io.StringIO())
    console.print(table(result))
    console.print(f"\nverdict: {result['verdict']['outcome']}. {result['verdict']['text']}", highlight=False)
    path.write_text(console.export_svg(title="ftlaunch demo"), encoding="utf-8")


def missing(output: Path, job: str) -> list[str]:
    """What the output tree should have and does not."""
    found = [f"{output} has no {name}" for name in TREE if not (output / name).is_file()]
    return found if output.parts[-2:] == ("runs", job) else [*found, f"the output is not runs/{job}: {output}"]


def independent(model: Path, output: Path) -> dict[str, dict[str, Any]]:
    """What the independent script finds, by evaluation."""
    done = subprocess.run([sys.executable, SCRIPT, model, DATA, output], stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line for line in found}


def predictions(output: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of predictions/, by evaluation."""
    files = {name: output / "predictions" / f"{name}.jsonl" for name in EVALUATIONS}
    return {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}


def judge(
    result: dict[str, Any], others: dict[str, dict[str, Any]], told: dict[str, list[dict[str, Any]]], seconds: float
) -> tuple[list[str], list[str]]:
    """The page's lines, and what does not hold."""
    peak = result["training"]["peak_memory_bytes"] / 1e9
    broken = []
    if result["verdict"]["outcome"] != "improved":
        broken.append(f"the verdict is {result['verdict']['outcome']}")
    if seconds > 60 * MINUTES or peak > GB:
        broken.append(f"{seconds:.0f} s and {peak:.2f} GB")
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "# The demo with the real model",
        "",
        f"{when}; {os.cpu_count()} cores ({platform.machine()}); {DEMO_MODEL}; made by `make proof`.",
        "",
        f"- The whole of `ftlaunch demo`, making the model included: {seconds:.0f} s.",
        f"- Peak memory of the training process: {peak:.2f} GB.",
        f"- {result['verdict']['text']}",
        "",
        "| evaluation | macro-F1 | 95 % interval | by scikit-learn from predictions/ | by the independent script |",
        "|---|---|---|---|---|",
    ]
    for name in EVALUATIONS:
        entry, rows = result["evaluations"][name], told[name]
        value, (low, high) = entry["metrics"]["macro_f1"], entry["ci95"]["macro_f1"]
        true, said = [row["reference"] for row in rows], [row["prediction"] for row in rows]
        again = f1_score(true, said, average="macro", zero_division=0)
        other = others[name]["macro_f1"] if name in others else None
        shown = "" if other is None else f"{other:.4f}"
        lines.append(f"| {name} | {value:.4f} | {low:.3f} to {high:.3f} | {again:.4f} | {shown} |")
        if abs(again - value) > 1e-9 or (other is not None and abs(other - value) > TOLERANCE):
            broken.append(f"{name}: {value} told, {again} from the predictions, {other} by the independent script")
    same = sum(
        row["prediction"] == chosen for row, chosen in zip(told["tuned"], others["tuned"]["chosen"], strict=True)
    )
    lines += ["", f"Plain transformers and peft give the tuned model's answer in {same} of {len(told['tuned'])} rows."]
    if same < len(told["tuned"]):
        broken.append(f"plain transformers and peft answer {len(told['tuned']) - same} rows differently")
    return lines, broken


if __name__ == "__main__":
    sys.exit(main())
