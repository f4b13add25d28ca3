"""Ctrl-C at a real terminal: once it asks, twice it leaves at once; the job lives on unless it is cancelled."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.launcher.conftest import FTLAUNCH, Command, write_job

CTRL_C = b"\x03"


class Terminal:
    """A terminal with ``ftlaunch run JOB`` in it."""

    def __init__(self, ftlaunch: Command, job: str) -> None:
        self.master, slave = pty.openpty()
        self.seen = b""
        self.process = subprocess.Popen(
            [FTLAUNCH, "run", job],
            cwd=ftlaunch.folder,
            env=ftlaunch.environment | {"TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=lambda: _take_terminal(slave),
            start_new_session=True,
        )
        os.close(slave)

    def read_to(self, text: bytes, seconds: float = 30.0) -> None:
        start, end = len(self.seen), time.monotonic() + seconds
        while text not in self.seen[start:]:
            assert time.monotonic() < end, self.seen[-2000:].decode(errors="replace")
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096)
                except OSError:  # the other end has closed
                    assert text in self.seen[start:], self.seen[-2000:].decode(errors="replace")

    def write(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.master, 4096)
        return self.process.wait(1)


def _take_terminal(slave: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(ftlaunch: Command) -> Iterator[Terminal]:
    write_job(ftlaunch.folder / "birds", steps=100)
    terminal = Terminal(ftlaunch, "birds")
    terminal.read_to(b"of 100")
    yield terminal
    with contextlib.suppress(ProcessLookupError):
        terminal.process.send_signal(signal.SIGKILL)
    os.close(terminal.master)


def state(ftlaunch: Command) -> str:
    (job,) = ftlaunch.json("jobs")
    with ftlaunch.start("status", job["job"]) as process:
        process.communicate()
    return ftlaunch.json("jobs")[0]["state"]


def test_once_and_detach(ftlaunch, terminal):
    terminal.write(CTRL_C)
    terminal.read_to(b"Detach, cancel it, or watch on?")
    terminal.write(b"d\n")
    assert terminal.end() == 130
    assert b"ftlaunch logs -f birds-" in terminal.seen
    assert state(ftlaunch) == "RUNNING"
    ftlaunch("cancel", "birds")


def test_once_and_cancel(ftlaunch, terminal):
    terminal.write(CTRL_C)
    terminal.read_to(b"Detach, cancel it, or watch on?")
    terminal.write(b"cat x\n")  # no answer, though it begins like one
    terminal.read_to(b"please answer")
    terminal.write(b"c\n")
    assert terminal.end() == 130
    assert b"CANCELLED" in terminal.seen
    assert state(ftlaunch) == "CANCELLED"


def test_once_and_watch_on(ftlaunch, terminal):
    terminal.write(CTRL_C)
    terminal.read_to(b"Detach, cancel it, or watch on?")
    terminal.write(b"w\n")
    assert terminal.end() == 0
    assert b"No clear difference." in terminal.seen
    assert state(ftlaunch) == "SUCCEEDED"


def test_twice_leaves_at_once_and_the_job_lives_on(ftlaunch, terminal):
    terminal.write(CTRL_C)
    terminal.read_to(b"Detach, cancel it, or watch on?")
    begin = time.monotonic()
    terminal.write(CTRL_C)
    assert terminal.end() == 130
    assert time.monotonic() - begin < 2
    assert b"Traceback" not in terminal.seen
    assert state(ftlaunch) == "RUNNING"
    ftlaunch("cancel", "birds")
