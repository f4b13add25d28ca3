"""A disk of a few bytes, or one that cannot be written: real ones, mounted for a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, size: str, *more: str) -> Iterator[Path]:
    """A tmpfs of that size (``16k``, ``1m``) with more mount options (``ro``); skips where none may be mounted."""
    folder.mkdir()
    options = ",".join((f"size={size}", *more))
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        assert "CI" not in os.environ, done.stderr
        pytest.skip("no disk can be mounted here; that needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk is full; gives the file."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"0" * 4096):
                pass
        except OSError:
            pass
    return filler
