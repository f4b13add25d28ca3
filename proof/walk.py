"""A walk over one backend: `ftlaunch --backend NAME examples/definitions` with the real small model, to the verdict.

A module of each backend makes the place ready, calls `walk`, adds what only it can check, and calls `write`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sklearn.metrics import f1_score

from launcher.demo_model import DEMO_MODEL, made_apart
from launcher.results import verify
from proof.real_model import DATA, EVALUATIONS, ROOT, predictions

FTLAUNCH = Path(sys.executable).with_name("ftlaunch")


@dataclass
class Walked:
    """What the walk showed."""

    backend: str
    command: list[str]
    planned: dict[str, Any]
    """The dry run's document."""
    document: dict[str, Any]
    """What the run printed with ``--json``."""
    result: dict[str, Any]
    output: Path
    shown: list[str]
    """What the run showed to a person."""
    seconds: float
    checks: list[tuple[str, bool]] = field(default_factory=list)

    def check(self, sentence: str, holds: bool) -> None:
        """Note a promise and whether it held."""
        self.checks.append((sentence, holds))


def walk(backend: str, *sets: str, folder: Path) -> Walked:
    """Run the command; `FTLAUNCH_HOME` and the way to the place are in the environment. ``sets``: ``a.b=c``."""
    made_apart()
    command = command_for(backend, *sets)
    return to_the_verdict(backend, command, dry_run(command), folder)


def command_for(backend: str, *sets: str) -> list[str]:
    """The walk's arguments of ``ftlaunch``."""
    return ["--backend", backend, str(DATA.relative_to(ROOT)), *(part for each in sets for part in ("--set", each))]


def dry_run(command: list[str]) -> dict[str, Any]:
    """The document of the command's dry run."""
    planned: dict[str, Any] = json.loads(_run([*command, "--dry-run", "--json"]).stdout)
    return planned


def to_the_verdict(
    backend: str, command: list[str], planned: dict[str, Any], folder: Path, most_seconds: float | None = None
) -> Walked:
    """Run the command, with its results in the folder's ``output``, and judge what holds of every backend."""
    began = time.monotonic()
    done = _run([*command, "--json", "--yes", "--output", str(folder / "output")], most_seconds)
    seconds = time.monotonic() - began
    document = json.loads(done.stdout)
    output = Path(document["output"])
    result = json.loads((output / "result.json").read_text())
    walked = Walked(backend, command, planned, document, result, output, done.stderr.splitlines(), seconds)
    judge(walked)
    return walked


def judge(walked: Walked) -> None:
    """Note what holds of every backend."""
    improved = walked.document["state"] == "SUCCEEDED" and walked.result["verdict"]["outcome"] == "improved"
    walked.check("the job SUCCEEDED and its verdict is `improved`", improved)
    walked.check("every fetched file is as the container's manifest says", verify(walked.output) == [])
    walked.check("the container says that it ran at this place", walked.result["platform"]["name"] == walked.backend)
    walked.check("the log was followed to its last line", any(line.startswith("[done]") for line in walked.shown))


def _run(arguments: list[str], most_seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    command = [FTLAUNCH, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=most_seconds)
    if done.returncode:
        sys.exit(f"ftlaunch {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done


def write(walked: Walked, title: str, place: str) -> int:
    """Write docs/proof/BACKEND.md; gives the exit code. ``place``: a sentence that says what stood for the cloud."""
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"# {title}",
        "",
        f"{when}; {os.cpu_count()} cores ({platform.machine()}); {DEMO_MODEL}; made by `make proof`. {place}",
        "",
        f"`ftlaunch {' '.join(walked.command)}` took {walked.seconds:.0f} s, building the image not included.",
        "",
        walked.result["verdict"]["text"],
        "",
        *_table(walked),
        "",
        *(f"- {'yes' if holds else 'NO'}: {sentence}" for sentence, holds in walked.checks),
        "",
        "What the command showed:",
        "",
        "```",
        *(line for line in walked.shown if line.strip()),
        "```",
    ]
    page = ROOT / "docs" / "proof" / f"{walked.backend}.md"
    page.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0 if all(holds for _, holds in walked.checks) else 1


def _table(walked: Walked) -> list[str]:
    """The evaluations, each computed once more from its predictions by scikit-learn."""
    lines = ["| evaluation | macro-F1 | 95 % interval | by scikit-learn from predictions/ |", "|---|---|---|---|"]
    told = predictions(walked.output)
    same = True
    for name in EVALUATIONS:
        entry, rows = walked.result["evaluations"][name], told[name]
        value, (low, high) = entry["metrics"]["macro_f1"], entry["ci95"]["macro_f1"]
        true, said = [row["reference"] for row in rows], [row["prediction"] for row in rows]
        again = f1_score(true, said, average="macro", zero_division=0)
        same = same and abs(again - value) < 1e-9
        lines.append(f"| {name} | {value:.4f} | {low:.3f} to {high:.3f} | {again:.4f} |")
    walked.check("scikit-learn finds the same macro-F1 from the predictions", same)
    return lines
