"""What can end a run, said to people, and the exit codes of ``python -m training_image``.

Never 6, 11, 134 or 139: Vertex AI takes these for transient faults of its own and starts the job again.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_OUT_OF_MEMORY = 3
EXIT_DIVERGED = 4
EXIT_STOPPED = 143
EXIT_UNFORESEEN = 1
"""A fault of the program itself, shown with its traceback."""


class RunError(Exception):
    """An end that is no fault of the program. ``message`` says what and where, ``hint`` what to do."""

    exit_code: ClassVar[int] = EXIT_UNFORESEEN

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(RunError):
    """The user's input is wrong: job file, data, model, folders."""

    exit_code: ClassVar[int] = EXIT_BAD_INPUT


class OutOfMemory(RunError):
    """The job does not fit into the memory of the machine or its accelerator."""

    exit_code: ClassVar[int] = EXIT_OUT_OF_MEMORY


class Diverged(RunError):
    """The loss is not a number, or rose far above its start."""

    exit_code: ClassVar[int] = EXIT_DIVERGED


class Stopped(RunError):
    """Asked to stop (SIGTERM, SIGINT); what was reached is saved."""

    exit_code: ClassVar[int] = EXIT_STOPPED
