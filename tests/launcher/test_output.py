"""Where the output goes: a reader that leaves, as `head` does, and an output that was closed from the start."""

from __future__ import annotations

import subprocess

import pytest

from backends.interface import State
from launcher.store import Record, Store
from tests.launcher.conftest import FTLAUNCH, Command, ftlaunch  # noqa: F401

COMMANDS = ["jobs", "jobs --cost", "jobs --json", "--help"]


@pytest.fixture
def many(ftlaunch: Command) -> Command:
    """More jobs than a pipe holds."""
    store = Store(ftlaunch.home)
    for number in range(400):
        text = f"birds-{number:08x}"
        store.add(Record(text, text, 0, "local", "", "", None, "", state=State.SUCCEEDED, ended=1.0, output="o" * 200))
    store.close()
    return ftlaunch


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("way", ["| head -c 1", ">&-"])
def test_output_that_nobody_takes_is_no_error(many: Command, command: str, way: str) -> None:
    script = f"set -o pipefail; {FTLAUNCH} {command} {way}"
    done = subprocess.run(["bash", "-c", script], env=many.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
