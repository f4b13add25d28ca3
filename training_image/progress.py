"""Progress lines: what the container prints, people read and the launcher parses.

One line an event, ``[stage] key=value key=value`` with values free of blanks, so that a service's own metric
definitions (a regular expression such as ``train/loss=([-0-9.e]+)``) can read them as well as a person.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

Stage = str
"""start, check, load, zero_shot, few_shot, classical, train, tuned, save, verdict, done"""

_LINE = re.compile(r"^\[(?P<stage>[a-z_]+)\](?P<pairs>(?: [\w/.-]+=\S+)+)\s*$")


def emit(stage: Stage, **values: float | int | str) -> None:
    """Print one progress line at once."""
    pairs = " ".join(f"{name}={_show(value)}" for name, value in values.items())
    print(f"[{stage}] {pairs}", flush=True)


def emit_mapping(stage: Stage, values: Mapping[str, float | int | str]) -> None:
    """As `emit`, for names that are not identifiers (``train/loss``)."""
    pairs = " ".join(f"{name}={_show(value)}" for name, value in values.items())
    print(f"[{stage}] {pairs}", flush=True)


def say(message: str) -> None:
    """Print a plain line for people."""
    print(message, file=sys.stdout, flush=True)


def parse(line: str) -> tuple[Stage, dict[str, float | str]] | None:
    """Read a progress line back; None for any other line."""
    match = _LINE.match(line)
    if match is None:
        return None
    values: dict[str, float | str] = {}
    for pair in match["pairs"].split():
        name, _, text = pair.partition("=")
        try:
            values[name] = float(text)
        except ValueError:
            values[name] = text
    return match["stage"], values


def _show(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return re.sub(r"\s+", "_", str(value)) or "-"
