"""Follows a job on the terminal, and asks at Ctrl-C whether it shall go on without us."""

from __future__ import annotations

import os
import select
import signal
import sys

import click

from backends.interface import State
from launcher.cli import common
from launcher.cli.view import make_view
from launcher.store import Record, Store
from launcher.watch import Watch


def follow(record: Record, store: Store) -> Record | None:
    """Follow to the end; None if the user left and the job goes on, or was cancelled at Ctrl-C.

    Ctrl-C asks once whether to detach or to cancel (without a terminal it detaches); a second one leaves at once.
    """
    backend = common.backend_of(record)
    try:
        return _watched(record, store)
    except KeyboardInterrupt:
        choice = _choice(record)
    try:
        if choice == "w":
            return _watched(store.get(record.job) or record, store)
        if choice == "c" and record.handle is not None:
            with common.asked(backend):
                backend.cancel(record.handle)
            common.say(f"stopping {record.job}; Ctrl-C leaves at once")
            ended = _watched(store.get(record.job) or record, store)
            if ended.state is State.SUCCEEDED:
                common.say(f"{record.job} had succeeded before it could be stopped")
                return ended
            common.say(f"{record.job} is {ended.state}; what it saved: ftlaunch fetch {record.job}")
            return None
    except KeyboardInterrupt:
        pass
    _say_how_to_follow(record)
    return None


def _watched(record: Record, store: Store) -> Record:
    backend = common.backend_of(record)
    title = f"{record.job} on {record.backend}; Ctrl-C asks whether to leave it running or to stop it"
    with make_view(title) as view, common.asked(backend):
        return Watch(record, store, backend, view).to_end()


def _choice(record: Record) -> str:
    """d: detach, c: cancel, w: watch on."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "d"
    question = f"{record.job} goes on by itself. Detach, cancel it, or watch on? (d, c, w) [d]: "
    try:
        while (answer := _line(question).lower() or "d") not in ("d", "detach", "c", "cancel", "w", "watch"):
            common.say("please answer d, c or w")
    except (EOFError, KeyboardInterrupt):
        return "d"
    return answer[0]


def _line(question: str) -> str:
    """Ask for a line. Unlike `input`, it sees a Ctrl-C that comes in the moment before it waits."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        click.echo(question, nl=False, err=True)
        while sys.stdin not in select.select([sys.stdin, reader], [], [])[0]:
            os.read(reader, 1)  # a signal; if it was Ctrl-C, Python raises KeyboardInterrupt here
        line = sys.stdin.readline()
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
    if not line:
        raise EOFError
    return line.strip()


def _say_how_to_follow(record: Record) -> None:
    common.say(f"{record.job} goes on. Follow it: ftlaunch logs -f {record.job}; stop it: ftlaunch cancel {record.job}")
