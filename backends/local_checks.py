"""What `backends.local` looks at before a job starts on this machine."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from backends.interface import Finding, Plan

ROOM = 1 << 30
"""Bytes that a job's checkpoints and results may need beside its data."""
NEEDED = ("torch", "transformers", "peft", "bitsandbytes", "sklearn", "scipy")
"""What the training imports."""


def findings(plan: Plan, root: Path) -> list[Finding]:
    """Look at the Python that trains, at the free disk space below ``root``, and at what one machine cannot give."""
    return [*_python_findings(plan.request["argv"][0]), *_disk_findings(root), *_machine_findings(plan)]


def missing() -> list[str]:
    """The packages that training needs and this Python lacks."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def _python_findings(python: str) -> list[Finding]:
    if python != sys.executable:
        if shutil.which(python) is None:
            hint = "correct backends.local.python"
            return [Finding(level="error", code="python", message=f"there is no Python at {python}", hint=hint)]
        return []
    lacking = missing()
    if not lacking:
        return []
    message = f"training here needs {', '.join(lacking)}"
    return [Finding(level="error", code="extra", message=message, hint="pip install 'ftlaunch[local]'")]


def _disk_findings(root: Path) -> list[Finding]:
    place = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free >= ROOM:
        return []
    message = f"only {free >> 20} MiB are free in {place}; a job needs about {ROOM >> 20} MiB"
    hint = "free some space, or set FTLAUNCH_HOME to a folder on a larger disk"
    return [Finding(level="error", code="disk", message=message, hint=hint)]


def _machine_findings(plan: Plan) -> list[Finding]:
    found = []
    if plan.request["machines"] > 1:
        hint = "set resources.machines to 1, or take another --backend"
        found.append(Finding(level="error", code="machines", message="this is one machine", hint=hint))
    if plan.request["gpu"] and not Path("/proc/driver/nvidia/gpus").exists():
        message = f"resources.gpu asks for {plan.request['gpu']}, and no GPU of NVIDIA's is seen here"
        found.append(Finding(level="warning", code="gpu", message=message, hint="the job will run on the CPU"))
    return found
