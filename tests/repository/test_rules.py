"""The repository's own rules: small files, small functions, nothing heavy at start-up, a small core."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for part in ("launcher", "backends", "training_image") for path in (ROOT / part).rglob("*.py"))
HEAVY = {"torch", "transformers", "pydantic", "boto3", "google", "azure", "docker", "rich", "yaml"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or node.lineno) - node.lineno < 60, node.name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import json, sys\n"
        "from launcher.cli import call\n"
        "call(['--help'])\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "Usage" in done.stdout
    assert not loaded & HEAVY


def core(name: str, seen: set[str]) -> set[str]:
    """The distribution and what it requires without extras."""
    if name.lower() in seen:
        return seen
    seen.add(name.lower())
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            core(requirement.name, seen)
    return seen


def test_the_core_is_at_most_30_mb() -> None:
    names = core("ftlaunch", set()) - {"ftlaunch"}
    assert "torch" not in names
    size = sum(file.size or 0 for name in names for file in importlib.metadata.files(name) or [])
    assert size < 30e6
