"""What the service would have seen of the starts, and whether that is what it should see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import results
from launcher.rehearsal.before import Check
from launcher.rehearsal.layout import Layout
from launcher.rehearsal.stage import Stage, Start
from training_image.contracts import CHECKPOINTS
from training_image.errors import STOPPED
from training_image.progress import parse

HINTS = (
    (
        "task.metric",
        "a metric of your own must be in the image too: name its requirements, with hashes, in image.extra",
    ),
    ("cannot be loaded", "what the image lacks is added by image.extra, a file of requirements with hashes"),
    ("ModuleNotFoundError", "what the image lacks is added by image.extra, a file of requirements with hashes"),
    ("cannot read", "the folders that the service gives are listed above"),
    ("cannot write", "the folders that the service gives are listed above"),
    ("where is", "the folders that the service gives are listed above"),
)
"""What to do, by words of the failure."""
LOG_TAIL = 30
OUTPUT_MARK = "manifest.json"


@dataclass
class Seen:
    """All that came out of the container."""

    starts: list[Start]
    failure: str | None = None
    """What the service would show as the reason of the failure."""
    tree: dict[str, int] = field(default_factory=dict)
    """The output tree: bytes by name."""
    wrong: list[str] = field(default_factory=list)
    """Files that are not as the manifest says."""
    result: dict[str, Any] = field(default_factory=dict)
    """``result.json``."""
    metrics: dict[str, list[float]] = field(default_factory=dict)
    checkpoints: list[str] = field(default_factory=list)

    @property
    def last(self) -> Start:
        """The start that the job ended with."""
        return self.starts[-1]

    @property
    def resumed_from(self) -> int | None:
        """The step that the last start went on from."""
        step: int | None = (self.result.get("training") or {}).get("resumed_from")
        return step


def look(stage: Stage, starts: list[Start], folder: Path) -> Seen:
    """Read what the last container left; ``folder`` is an empty one that its output tree may use."""
    layout, number = stage.layout, len(starts)
    seen = Seen(starts, failure=_failure(stage, number))
    _extract(stage, number, layout.output, folder)
    seen.tree = {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)}
    if OUTPUT_MARK in seen.tree:
        seen.wrong = results.verify(folder)
    if "result.json" in seen.tree:
        seen.result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if layout.request.metrics:
        seen.metrics = _by_patterns(layout.request.metrics, [line for start in starts for line in start.lines])
    elif "metrics.jsonl" in seen.tree:
        seen.metrics = _by_lines((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    for path in layout.paths(CHECKPOINTS):
        seen.checkpoints += _names(stage, number, path)
    return seen


def checks(layout: Layout, seen: Seen, interrupted: bool) -> list[Check]:
    """Whether all went as the service wants it, in the order in which it shows."""
    found = list(_interruption(layout, seen) if interrupted else ())
    return [*found, *_ending(layout, seen), *_output(layout, seen), *_metrics(layout, seen)]


def hint(text: str) -> str:
    """What to do about a failure."""
    return next((advice for words, advice in HINTS if words in text), "the end of its output is above")


def _ending(layout: Layout, seen: Seen) -> Iterator[Check]:
    last, contract = seen.last, layout.contract
    if last.exit_code == 0:
        yield Check("ok", "exit", f"ended with 0 after {last.seconds:.1f} s: a success")
        return
    told = seen.failure or _complaint(last.lines)
    if last.out_of_memory:
        yield Check("error", "memory", "the container ran out of this machine's memory", "take a smaller model.id")
        return
    yield Check("error", "exit", f"ended with {last.exit_code}: a failure. {told}".strip(), hint(told))
    if last.exit_code in contract.retried_exit_codes:
        message = f"{contract.service} takes the exit code {last.exit_code} for a fault of its own and starts again"
        yield Check("error", "retried", message, "each such start is paid for: end with another code")


def _output(layout: Layout, seen: Seen) -> Iterator[Check]:
    if seen.last.exit_code:
        return
    place = layout.output
    if OUTPUT_MARK not in seen.tree:
        some = f"it has only {', '.join(list(seen.tree)[:5])}" if seen.tree else "it is empty"
        yield Check("error", "output", f"no whole output tree in {place}: {some}", "write it there, the manifest last")
    elif seen.wrong:
        message = f"{len(seen.wrong)} files in {place} are not as the manifest says: {', '.join(seen.wrong[:5])}"
        yield Check("error", "output", message, "write the manifest last")
    else:
        size = sum(seen.tree.values()) / 1e6
        yield Check("ok", "output", f"{len(seen.tree)} files, {size:.1f} MB, in {place}, as the manifest says")
    if CHECKPOINTS in layout.contract.kept and not seen.checkpoints:
        advice = "an interruption would cost the whole training"
        yield Check("error", "checkpoints", f"nothing was left in {', '.join(layout.paths(CHECKPOINTS))}", advice)


def _metrics(layout: Layout, seen: Seen) -> Iterator[Check]:
    if seen.last.exit_code:
        return
    empty = [name for name in layout.request.metrics if name not in seen.metrics]
    if empty:
        message = f"{layout.contract.service} would find no value of {', '.join(empty)} in the log"
        yield Check("warning", "metrics", message, "compare their regular expressions with the lines above")
    if seen.metrics:
        lines = sum(len(values) for values in seen.metrics.values())
        yield Check("ok", "metrics", f"{lines} values of {len(seen.metrics)} metrics")
    elif not empty:
        yield Check("warning", "metrics", "no line of metrics was written", "metrics.jsonl should have one a step")


def _interruption(layout: Layout, seen: Seen) -> Iterator[Check]:
    contract, first = layout.contract, seen.starts[0]
    if not first.interrupted:
        message = f"it ended with {first.exit_code} before it could be interrupted"
        yield Check("error", "interrupt", message, "the check below says why; else give it more rows to do")
        return
    if not contract.interruption_notice:
        yield Check("ok", "interrupt", f"killed without notice, as {contract.service} does")
    elif first.killed:
        message = f"did not end within {contract.grace_seconds} s of SIGTERM and was killed"
        yield Check("error", "interrupt", message, "the process must take SIGTERM itself: start it by exec, without sh")
    elif first.exit_code != STOPPED:
        message = f"ended with {first.exit_code} at SIGTERM; a training that saved ends with {STOPPED}"
        yield Check("error", "interrupt", message, hint(_complaint(first.lines)))
    else:
        yield Check(
            "ok", "interrupt", f"ended by itself {first.grace:.1f} s after SIGTERM ({contract.grace_seconds} s)"
        )
    yield from _resume(layout, seen)


def _resume(layout: Layout, seen: Seen) -> Iterator[Check]:
    if seen.last.exit_code:
        return
    if CHECKPOINTS not in layout.contract.kept:
        message = f"{layout.contract.service} keeps nothing of a lost machine: the second start begins anew"
        yield Check("note", "resume", message)
    elif seen.resumed_from:
        yield Check("ok", "resume", f"the second start went on from step {seen.resumed_from}")
    else:
        place = ", ".join(layout.paths(CHECKPOINTS))
        yield Check("error", "resume", "the second start began anew", f"see what was kept in {place}")


def _failure(stage: Stage, number: int) -> str | None:
    path = stage.layout.contract.failure_file
    if path is None:
        return None
    with stage.read(number, path) as archive:
        for member in archive or ():
            file = archive.extractfile(member) if archive else None
            if file is not None:
                return file.read().decode(errors="replace")[: stage.layout.contract.failure_limit]
    return None


def _complaint(lines: Sequence[str]) -> str:
    """The line that says what went wrong: ours begins with ``error:``, a traceback ends with its own."""
    ours = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if ours:
        return "\n".join(lines[ours[-1] :][:2])
    return lines[-1] if lines else "It printed nothing."


def _extract(stage: Stage, number: int, path: str, folder: Path) -> None:
    with stage.read(number, path) as archive:
        for member in archive or ():
            inner = member.name.partition("/")[2]
            if archive is not None and inner:
                archive.extract(member.replace(name=inner), folder, filter="data")


def _names(stage: Stage, number: int, path: str) -> list[str]:
    with stage.read(number, path) as archive:
        return [member.name for member in archive or () if member.isfile()]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _by_patterns(patterns: Mapping[str, str], lines: Sequence[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, pattern in patterns.items():
        values = [float(match[1]) for line in lines if (match := re.search(pattern, line))]
        if values:
            found[name] = values
    return found


def _by_lines(lines: Sequence[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for line in lines:
        for name, value in json.loads(line).items():
            if "/" in name and isinstance(value, float):
                found.setdefault(name, []).append(value)
    return found


def steps(start: Start) -> int:
    """The last step that a start reported."""
    parsed = [each for line in start.lines if (each := parse(line)) is not None and each[0] == "train"]
    return max((int(values["step"]) for _, values in parsed if "step" in values), default=0)
