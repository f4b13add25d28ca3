"""The local place keeps its promises, with real training of the tiny model."""

import contextlib
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from backends.conformance import Census, Harness, Levers, SmallJob, parameters, small_job
from backends.interface import Backend, Handle
from backends.local import Local
from tests.tiny_model import MODEL, tasks

SETTLED = 1.0
"""Seconds within which a training that was asked for has surely begun."""


class LocalHarness(Harness):
    """Trainings are started through a script that writes each start down, past the backend."""

    backend: ClassVar[type[Backend]] = Local
    remote: ClassVar[bool] = False
    limit_seconds: ClassVar[int] = 4  # before the first step: the supervisor has to stop it, not the deadline
    long_steps: ClassVar[int] = 150
    trains_with: ClassVar[str] = sys.executable

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.home = Path(os.environ["FTLAUNCH_HOME"])
        self.starts = folder / "starts.txt"
        self.starts.touch()
        self.python = folder / "python"
        script = f'#!/bin/sh\necho "$*" >> {shlex.quote(str(self.starts))}\nexec {shlex.quote(self.trains_with)} "$@"\n'
        self.python.write_text(script)
        self.python.chmod(0o755)
        self.seen: dict[tuple[int, int], int] = {}

    def small_job(self) -> SmallJob:
        train = tasks.write_jsonl(self.folder / "train.jsonl", tasks.colours(60, seed=1))
        return small_job(train, MODEL, options={"python": str(self.python), "threads": 1})

    def census(self, job_name: str) -> Census:
        running = len(processes(job_name))
        if running:  # a training that is being started shows itself
            time.sleep(SETTLED)
        started = sum(f"/{job_name}/" in line for line in self.starts.read_text().splitlines())
        return Census(started=started, running=running)

    def bytes_sent(self) -> int:
        """Bytes of all files that staging ever wrote: a file written anew has another inode or time."""
        for kept in ("files", "local"):
            for path in (self.home / kept).rglob("*"):
                if path.is_file() and ("data" in path.parts or kept == "files"):
                    status = path.stat()
                    self.seen[status.st_ino, status.st_mtime_ns] = status.st_size
        return sum(self.seen.values())

    def levers(self) -> Levers:
        return Levers(kill_machine=self.kill)

    def kill(self, handle: Handle) -> None:
        """Kill the supervisor first: it would start a killed training again."""
        both = processes(handle.job_name)
        for process in sorted(both, key=lambda process: "local_supervisor" not in both[process]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def processes(job_name: str) -> dict[int, str]:
    """The supervisor and the training of that job: command line by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if entry.name.isdigit() and f"/local/{job_name}" in command:
                found[int(entry.name)] = command
    return found


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLAUNCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("OMP_NUM_THREADS", "1")
        with LocalHarness(tmp_path_factory.mktemp("local")) as harness:
            yield harness


@pytest.mark.parametrize("promise", **parameters(LocalHarness))
def test_keeps(promise, harness):
    promise.check(harness)
