"""The core without extras is small, so that a launcher fits anywhere."""

from __future__ import annotations

import re
from importlib.metadata import distribution, requires
from pathlib import Path

ROOT = Path(__file__).parents[2]


def core() -> set[str]:
    """Names of the distributions that ftlaunch without extras needs, itself not among them."""
    found: set[str] = set()
    waiting = ["ftlaunch"]
    while waiting:
        for line in requires(waiting.pop()) or []:
            name = re.match(r"[\w.-]+", line)[0].lower()
            if "extra ==" not in line and "python_version" not in line and "win32" not in line and name not in found:
                found.add(name)
                waiting.append(name)
    return found


def test_the_core_is_at_most_30_mb() -> None:
    assert {"click", "pydantic", "rich"} <= core()
    files = [Path(str(file.locate())) for name in core() for file in distribution(name).files or []]
    files += [path for part in ("launcher", "backends", "training_image") for path in (ROOT / part).rglob("*.py")]
    assert sum(path.stat().st_size for path in files if path.is_file()) <= 30 * 2**20
