"""The repository's own rules: small files, small functions, and fakes that do not know what they try."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("launcher", "backends", "training_image", "tests", "proof", "benchmarks", "scripts")
SOURCES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))
CLOUDS = ROOT / "tests" / "clouds"
FAKES = sorted(
    path for path in CLOUDS.rglob("*.py") if path.name != "fixtures.py" and not path.name.startswith("test_")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or node.lineno) - node.lineno < 60, node.name


@pytest.mark.parametrize("path", FAKES, ids=lambda path: str(path.relative_to(CLOUDS)))
def test_loopback_clouds_know_nothing_of_what_they_try(path: Path) -> None:
    """Of this project they read the services' contracts with the container, and each other."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        own = [name for name in names if name.partition(".")[0] in PARTS]
        assert all(name == "training_image.contracts" or name.startswith("tests.clouds") for name in own), own
