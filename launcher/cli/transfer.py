"""Shows what is on its way to a place: a bar on a terminal, else a line for what is large. On standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends import transfer
from launcher.cli import common

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

LARGE = 10_000_000
"""Bytes from which on something that is sent is worth a line where no bar can be shown."""


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """While this lasts, what this thread sends is shown."""
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            from rich.console import Console

            told = Bar(stack, Console(stderr=True)).told
        else:
            told = Lines().told
        stack.enter_context(transfer.shown_by(told))
        yield


class Lines:
    """One line for each large thing."""

    def __init__(self) -> None:
        self.named: set[str] = set()

    def told(self, what: str, sent: int, known: int) -> None:
        """Print it once."""
        if known >= LARGE and what not in self.named:
            self.named.add(what)
            common.say(f"sending {what}")


class Bar:
    """A bar for the thing on its way; it comes with the first that is told of, and goes with the stack's end."""

    def __init__(self, stack: contextlib.ExitStack, console: Console) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.progress = Progress(*columns, console=console, transient=True)
        self.stack = stack
        self.tasks: dict[str, TaskID] = {}

    def told(self, what: str, sent: int, known: int) -> None:
        """Move its bar; those of what has been sent are taken away."""
        if not self.tasks:
            self.stack.enter_context(self.progress)
        if what not in self.tasks:
            for task in self.tasks.values():
                self.progress.update(task, visible=False)
            self.tasks[what] = self.progress.add_task(f"sending {what}", total=known, completed=sent)
        self.progress.update(self.tasks[what], completed=sent, total=known)
