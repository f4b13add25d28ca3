"""Why a job failed, told by the words of a service."""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import Pattern

from backends.interface import EXIT_REASONS, Reason

KILLED = 137
"""A container's exit code after SIGKILL: the hosts send it where memory has run out."""


def exit_reason(code: int) -> Reason:
    """What the training's own exit code means."""
    return Reason.OUT_OF_MEMORY if code == KILLED else EXIT_REASONS.get(code, Reason.UNKNOWN)


def failure(text: str, exit_code: Pattern[str], words: Iterable[tuple[str, Reason]]) -> Reason | None:
    """The reason in an error; None where it tells none.

    ``exit_code`` finds the training's own exit code, which goes before words that it happened to print; ``words`` are
    patterns of what went wrong outside of the training, first one first.
    """
    found = exit_code.search(text)
    if found:
        return exit_reason(int(found[1]))
    return next((reason for pattern, reason in words if re.search(pattern, text)), None)
