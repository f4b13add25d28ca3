"""What can end a run, said to people, and the exit code of each."""

from __future__ import annotations

DONE, BAD_INPUT, OUT_OF_MEMORY, DIVERGED, STOPPED = 0, 2, 3, 4, 143
"""Exit codes of ``python -m training_image``. Never 6, 11, 134 or 139: Vertex AI takes those for its own faults and
starts the job again."""


class _Said(BaseException):
    """What is told to people of an early end: ``message`` says what and where, ``hint`` what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RunError(_Said, Exception):
    """A run that ends early, and why."""


class InputError(RunError):
    """The user's input is wrong."""

    exit_code = BAD_INPUT


class OutOfMemory(RunError):
    """The memory of the device does not suffice, even for the smallest micro-batch."""

    exit_code = OUT_OF_MEMORY


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that a device's memory is full; its allocator of the CPU says so in words only."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


class Diverged(RunError):
    """The loss is no number any more, or far above where it began."""

    exit_code = DIVERGED


class Stopped(_Said):
    """Asked to stop from outside; what was done so far is saved.

    No Exception, as KeyboardInterrupt is none: a signal's handler raises it wherever the program happens to be, and a
    library that is being imported there would make an error of its own out of it, or go on as if nothing were.
    """

    exit_code = STOPPED
