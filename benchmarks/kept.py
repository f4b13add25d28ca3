"""Measured lines, kept with what they were measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def keep(path: Path, line: dict[str, Any]) -> None:
    """Append a line with date, device and versions."""
    import torch

    card = torch.cuda.is_available()
    where = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if card else _processor(),
        "threads": None if card else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(where | line) + "\n")


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{found[0]}, {len(found)} cores" if found else platform.machine()
