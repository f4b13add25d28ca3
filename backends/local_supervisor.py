"""The supervisor of one local job: a small process that outlives the launcher and is the training's parent.

Started as a script, ``python -I local_supervisor.py FOLDER``, with the standard library alone. It detaches itself,
holds a lock on ``FOLDER/supervisor.lock`` for as long as it lives, as the training does on ``FOLDER/training.lock``
(these, and no process ids, are what tells whether a job is alive, so a reused id fools nobody), and writes
``state.json`` at every change. It is asked to stop by the file ``FOLDER/cancel``; nobody but itself signals the
training, and only before it has waited for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

POLL = 0.2
"""Seconds between looks at the cancel file and the clock."""
RESTARTS = 20
"""Most restarts of a training that was killed."""
STOPPED = 143
"""Exit code of a training that was stopped and saved."""
LONGEST_LINE = 1 << 20
"""Bytes after which a line without an end is written anyway."""
SHORTEST = 4
"""Characters from which one line of a longer secret is hidden: a brace of a JSON file is no secret."""


class Supervisor:
    """Runs the training of one job folder to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        start: dict[str, Any] = json.loads((folder / "start.json").read_text())
        self.argv: list[str] = start["argv"]
        self.environment = os.environ | start["environment"]
        self.environment["PYTHONPATH"] = os.pathsep.join(
            path for path in (start["environment"].get("PYTHONPATH"), os.environ.get("PYTHONPATH")) if path
        )
        self.grace: float = start["grace_seconds"]
        self.secrets = [os.environ.get(name, "") for name in start["secrets"]]
        began = time.time()
        self.deadline: float | None = began + start["max_seconds"] if start["max_seconds"] else None
        if self.deadline is not None:
            self.environment["FTLAUNCH_DEADLINE"] = f"{self.deadline:.0f}"
        self.stopped_by: str | None = None
        self.state: dict[str, Any] = {
            "schema": 1,
            "pid": os.getpid(),
            "started": began,
            "training_pid": None,
            "training_started": None,
            "starts": before(folder) + 1,
            "restarts": 0,
            "ended": None,
            "exit_code": None,
            "cause": None,
        }

    def save(self, **changes: Any) -> None:
        """Write the state whole or not at all; a full disk is waited for, as nobody else knows how the job ended."""
        self.state |= changes
        text = json.dumps(self.state)
        for _ in range(300):
            with contextlib.suppress(OSError):
                temporary = self.folder / "state.json.new"
                temporary.write_text(text)
                temporary.replace(self.folder / "state.json")
                return
            time.sleep(1)

    def run(self) -> None:
        """Run the training, again where a kill left a newer checkpoint, and record the end."""
        while True:
            checkpoint, kills = newest(self.folder / "checkpoints"), oom_kills()
            code = self._run_once()
            by_memory = oom_kills() > kills
            if not self._worth_a_restart(code, newest(self.folder / "checkpoints") > checkpoint, by_memory):
                break
            self._note("the training was killed; it is started again from its last checkpoint")
            self.save(restarts=self.state["restarts"] + 1)
        self.save(ended=time.time(), exit_code=code, cause=self._cause(code, by_memory))

    def _cause(self, code: int, by_memory: bool) -> str:
        if self.stopped_by:
            return self.stopped_by
        if code == -signal.SIGKILL and by_memory:
            return "memory"
        # the training knows its deadline as well, and may have stopped and saved by itself a little earlier
        in_time = code == STOPPED and self.deadline is not None and time.time() > self.deadline - self.grace
        return "timed_out" if in_time else "exit"

    def _worth_a_restart(self, code: int, progressed: bool, by_memory: bool) -> bool:
        """Whether a killed training is started again: yes after progress, else once, unless memory ran out."""
        if code != -signal.SIGKILL or self.stopped_by or self.state["restarts"] >= RESTARTS:
            return False
        return progressed or (not by_memory and self.state["restarts"] == 0)

    def _run_once(self) -> int:
        """Start the training and see it to its end; gives its exit code."""
        alone = self._wait_for_an_orphan()
        if alone is None:
            return STOPPED
        try:
            training = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
                pass_fds=(alone,),
                preexec_fn=die_with_parent,  # safe: this process has one thread
            )
        except OSError as error:
            self._note(f"error: the training cannot be started: {error}")
            return 127
        finally:
            os.close(alone)  # from here on only the training holds it
        self.save(training_pid=training.pid, training_started=time.time())
        assert training.stdout is not None
        with training.stdout as output, (self.folder / "log.txt").open("ab", buffering=0) as log:
            self._attend(training, output, log)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(training.pid, signal.SIGKILL)  # what the training started and left behind
        return training.returncode

    def _wait_for_an_orphan(self) -> int | None:
        """Take ``training.lock`` for the training to hold, once that of a killed supervisor has let go of it; None if
        the job is to stop before that."""
        while (alone := lock(self.folder / "training.lock")) is None:
            if self._due_to_stop():
                return None
            time.sleep(POLL)
        return alone

    def _due_to_stop(self) -> bool:
        if self.stopped_by is None:
            if (self.folder / "cancel").exists():
                self.stopped_by = "cancelled"
            elif self.deadline is not None and time.time() >= self.deadline:
                self.stopped_by = "timed_out"
        return self.stopped_by is not None

    def _attend(self, training: subprocess.Popen[bytes], output: IO[bytes], log: IO[bytes]) -> None:
        """Copy the training's lines to the log, and stop it when told or when time is up."""
        os.set_blocking(output.fileno(), False)
        rest, kill_at, open_ = b"", None, True
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while open_ or training.poll() is None:
                if open_ and selector.select(POLL):
                    chunk = os.read(output.fileno(), 1 << 16)
                    rest = self._write_lines(log, rest + chunk)
                    if not chunk:
                        selector.unregister(output)
                        open_ = False
                elif training.poll() is not None:
                    break  # a grandchild may hold the pipe open; the training itself is gone
                elif not open_:
                    time.sleep(POLL)
                kill_at = self._stop_if_due(training, kill_at)
        if rest:
            self._write_lines(log, rest + b"\n")

    def _stop_if_due(self, training: subprocess.Popen[bytes], kill_at: float | None) -> float | None:
        """SIGTERM when cancelled or out of time, SIGKILL when the grace is over. Gives the time of the SIGKILL."""
        if not self._due_to_stop() or training.poll() is not None:
            return kill_at
        now = time.time()
        if kill_at is None:
            os.killpg(training.pid, signal.SIGTERM)
            return now + self.grace
        if now >= kill_at:
            os.killpg(training.pid, signal.SIGKILL)
        return kill_at

    def _write_lines(self, log: IO[bytes], text: bytes) -> bytes:
        """Write the whole lines of the text, secrets masked and redrawn bars left out; gives what is no line yet."""
        *lines, rest = text.split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        last = (os.fsdecode(line.rstrip(b"\r").rpartition(b"\r")[2]) for line in lines)
        shown = b"".join(os.fsencode(masked(line, self.secrets)) + b"\n" for line in last)
        with contextlib.suppress(OSError):  # a full disk must not stop the training
            log.write(shown)
        return rest

    def _note(self, message: str) -> None:
        with contextlib.suppress(OSError), (self.folder / "log.txt").open("ab", buffering=0) as log:
            log.write(message.encode() + b"\n")

    def stop(self, _signal: int, _frame: object) -> None:
        """The machine shuts down: stop the training as well, so that it can save."""
        self.stopped_by = self.stopped_by or "stopped"


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text with every line of every secret as ``***``, the longest first, as one may be the beginning of another.

    It stands here for all who show a log, because this file goes alone to where a training runs.
    """
    hidden: set[str] = set()
    for secret in secrets:
        lines = [line.strip() for line in secret.strip().splitlines()]
        hidden.update(line for line in lines if len(line) >= (SHORTEST if lines[1:] else 1))
    for line in sorted(hidden, key=len, reverse=True):
        text = text.replace(line, "***")
    return text


def before(folder: Path) -> int:
    """How often a supervisor has started this job so far."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return int(json.loads((folder / "state.json").read_text())["starts"])
    return 0


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to the training if its supervisor is killed (Linux; elsewhere it runs on)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)


def newest(folder: Path) -> int:
    """Time of the youngest entry below the folder in nanoseconds; 0 for none."""
    youngest = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                youngest = max(youngest, os.stat(os.path.join(root, name)).st_mtime_ns)
    return youngest


def oom_kills() -> int:
    """How many processes the kernel has killed for memory so far, by its own counters (Linux; else 0)."""
    total = 0
    for counter in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with contextlib.suppress(OSError, ValueError), open(counter) as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return total


def lock(path: Path) -> int | None:
    """Take the lock, which its holder's end frees; None if another has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(50):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        time.sleep(0.02)  # one who asks whether the job lives holds it shared for an instant
    os.close(handle)
    return None


def main(folder: Path) -> int:
    """Detach, and give 0 as soon as the detached process has recorded the start."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return 0 if os.read(reader, 1) == b"1" else 1
    os.close(reader)
    os.setsid()
    if lock(folder / "supervisor.lock") is None:
        os.write(writer, b"1")
        return 0
    supervisor = Supervisor(folder)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor.save()
    os.write(writer, b"1")
    os.close(writer)
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
