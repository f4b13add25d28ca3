"""At a narrow terminal nothing that counts is cut: columns are left out, and said to be."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from rich.console import Console

from backends.interface import Status
from launcher.cli.view import LiveView
from launcher.store import Record, State, Store
from tests.launcher.conftest import FTLAUNCH, Command, ftlaunch, write_job  # noqa: F401
from training_image import progress

NAME = "a-job-of-which-the-name-is-long-0123abcd"


def lines_at(columns: int, ftlaunch: Command, *arguments: str) -> list[str]:
    """What a terminal of that width shows of a command's output, without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in ftlaunch.environment.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    process = subprocess.Popen([FTLAUNCH, *arguments], cwd=ftlaunch.folder, env=kept, stdout=slave)
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 4096):
            seen += chunk
    except OSError:  # the other end has closed
        pass
    os.close(master)
    assert process.wait(10) == 0, seen.decode()
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).replace("\r", "").split("\n")


@pytest.fixture
def one(ftlaunch: Command) -> Command:
    store = Store(ftlaunch.home)
    output = str(ftlaunch.folder / "runs" / NAME)
    store.add(Record(NAME, NAME, 0, "sagemaker", "", "", None, "", state=State.SUCCEEDED, ended=1.0, output=output))
    store.close()
    return ftlaunch


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("more", [[], ["--cost"]])
def test_jobs_keeps_name_and_state_whole(one: Command, columns: int, more: list[str]) -> None:
    lines = lines_at(columns, one, "jobs", *more)
    assert max(map(len, lines)) <= columns
    (row,) = (line for line in lines if NAME in line)
    assert "SUCCEEDED" in row or more
    assert any("Left out" in line for line in lines) == (columns < 200)
    assert (f"runs/{NAME}" in row) == (columns == 200 and not more)


@pytest.mark.parametrize("columns", [60, 120, 250])
def test_cost_keeps_place_machine_and_dollars_whole(ftlaunch: Command, columns: int) -> None:
    write_job(ftlaunch.folder, top={"model": {"id": "meta-llama/Llama-3.1-70B"}})
    lines = lines_at(columns, ftlaunch, "cost", "--backend", "sagemaker")
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert any("…" in line for line in lines) is False
    (small,) = (line for line in lines if re.search(r"ml\.g5\.xlarge \(us-east-1\)", line))
    (large,) = (line for line in lines if re.search(r"ml\.p5\.48xlarge \(us-east-1\)", line))
    assert re.search(r"\d \(\d+\.\d\d-\d+\.\d\d\)", large)
    assert ("no 4" in small) if columns > 100 else ("does not fit" in small)
    assert any("Left out" in line for line in lines) == (columns < 250)


def test_the_live_line_fits_80_columns() -> None:
    view = LiveView(Console(width=80, force_terminal=True))
    view.status(Status(state=State.RUNNING))
    text = "[train] step=1151 steps=1440 train/loss=0.06412 validation/macro_f1=0.96213 seconds_left=45"
    view.line(text, progress.parse(text))
    with view.progress.console.capture() as captured:
        view.progress.console.print(view.progress.get_renderable())
    shown = re.sub(r"\x1b\[[0-9;]*m", "", captured.get())
    assert "step 1151 of 1440  loss 0.064  macro_f1 0.962  45 s left" in shown
    assert "0:00:00" in shown


def test_the_verdict_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = LiveView(Console(width=80))
    for text in ("a line", "[verdict] outcome=improved", "Tuning helped: much", "[done] output=x"):
        view.line(text, progress.parse(text))
    assert capsys.readouterr().out == "a line\n"
