"""Shows a followed job: a live line on a terminal, plain lines elsewhere. All on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from backends.interface import Status
from launcher.cli import common
from launcher.watch import View

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

NEXT = {
    "start": "reading the data, loading the frameworks",
    "check": "loading the model",
    "load": "measuring baselines",
    "classical": "measuring zero-shot",
    "zero_shot": "measuring few-shot",
    "few_shot": "measured the baselines",
    "train": "training",
    "save": "measuring the tuned model",
    "tuned": "comparing",
    "verdict": "finishing",
}
"""What goes on after the line of a stage, which is printed when the stage is done (but for ``train``)."""
ROOM_FOR_A_BAR = 100
"""Columns of a terminal that has room for a bar beside the words."""
Values = Mapping[str, float | str]


@contextlib.contextmanager
def make_view(title: str) -> Iterator[View]:
    """The view that fits standard error; a live one is headed by the title."""
    if not sys.stderr.isatty():
        yield PlainView()
        return
    from rich.console import Console

    view = LiveView(Console(stderr=True))
    common.say(title)
    with view.progress:
        yield view


class PlainView:
    """One line for each line of the job, and for each change of its state."""

    def __init__(self) -> None:
        self.shown = ""

    def line(self, text: str, parsed: tuple[str, dict[str, float | str]] | None) -> None:
        """Print it as it is."""
        common.say(text)

    def status(self, status: Status) -> None:
        """Print it when it changed."""
        told = f"{status.state}" + (f" ({status.reason})" if status.reason else "")
        if told != self.shown:
            self.shown = told
            message = "" if status.state.ended else status.message  # of an end more is told than its state
            common.say(f"state: {told}" + (f": {message}" if message else ""))

    def note(self, text: str) -> None:
        """Print it."""
        common.say(text)


class LiveView:
    """One bar that tells stage, step, loss, task metric and time left; plain lines of the job above it."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            *([BarColumn(bar_width=16)] if console.width >= ROOM_FOR_A_BAR else []),
            TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True, ratio=1)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        )
        self.progress: Progress = Progress(*columns, console=console, transient=True)
        self.task: TaskID = self.progress.add_task("", total=None, told="starting Python")
        self.values: dict[str, float | str] = {}
        self.state = self.stage = ""

    def line(self, text: str, parsed: tuple[str, dict[str, float | str]] | None) -> None:
        """Move the bar by a progress line; print any other but the verdict's text, which the table at the end has."""
        if parsed is None:
            if self.stage != "verdict":
                self.progress.console.print(text, markup=False, highlight=False)
            return
        stage, values = self.stage, _ = parsed
        self.values |= values
        at, of = done(values)
        left = values.get("seconds_left")
        words = [*(told(stage, self.values) or [NEXT.get(stage, stage)]), time_left(left)]
        self.progress.update(self.task, total=of, completed=at or 0, told="  ".join(word for word in words if word))

    def status(self, status: Status) -> None:
        """Tell the state before the bar."""
        if status.state != self.state:
            self.state = status.state
            self.progress.update(self.task, description=status.state.lower())

    def note(self, text: str) -> None:
        """Print it above the bar."""
        self.progress.console.print(text, markup=False, highlight=False)


def done(values: Values) -> tuple[float | None, float | None]:
    """The step and the number of steps, where the line tells them."""
    at, of = values.get("step"), values.get("steps")
    return (at if isinstance(at, float) else None), (of if isinstance(of, float) else None)


def told(stage: str, values: Values) -> list[str]:
    """Step, loss and task metric in words."""
    if stage != "train":
        return []
    at, of = done(values)
    words = [f"step {at:.0f} of {of:.0f}"] if at is not None and of is not None else []
    numbers = {name: value for name, value in values.items() if isinstance(value, float)}
    words += [f"loss {numbers['train/loss']:.3f}"] if "train/loss" in numbers else []
    metrics = {name.removeprefix("validation/"): value for name, value in numbers.items() if "validation/" in name}
    return words + [f"{name} {value:.3f}" for name, value in metrics.items() if name != "loss"][:1]


def time_left(seconds: float | str | None) -> str:
    """In words, where the line told it."""
    if not isinstance(seconds, float):
        return ""
    return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"
