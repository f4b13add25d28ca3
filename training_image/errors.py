"""What can end a run, said to people."""

from __future__ import annotations


class InputError(Exception):
    """The user's input is wrong (exit code 2). ``message`` says what and where, ``hint`` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
