"""Stage and submit a job, then die at once: a launcher killed between the create call and its record.

`main` reads `Launch` as JSON from standard input; it never returns.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from backends.interface import Backend, Plan


class Launch(BaseModel):
    """What to start, and by which backend."""

    module: str
    name: str
    plan: Plan
    files: dict[str, Path]


def main() -> None:
    """Stage, submit, die."""
    launch = Launch.model_validate_json(sys.stdin.read())
    owner: Any = importlib.import_module(launch.module)
    for part in launch.name.split("."):
        owner = vars(owner)[part]
    kind: type[Backend] = owner
    backend = kind.create()
    backend.stage(launch.plan, launch.files)
    backend.submit(launch.plan, {})
    os.kill(os.getpid(), signal.SIGKILL)
