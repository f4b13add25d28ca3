"""Why a training ended, out of its own output."""

from __future__ import annotations

from collections.abc import Iterable

from training_image import progress


def last_words(lines: Iterable[str]) -> str:
    """The error line of the training with its hint, else its last plain line; empty if there is none."""
    plain = [line.rstrip() for line in lines if line.strip() and progress.parse(line) is None]
    at = max((number for number, line in enumerate(plain) if line.startswith("error: ")), default=len(plain) - 1)
    if not plain:
        return ""
    hints = [line.strip() for line in plain[at + 1 :] if line.startswith(" ")]
    return ". ".join([plain[at].removeprefix("error: ").strip().rstrip("."), *hints])
