"""What can be wrong with data: one `DataError` that ends the reading, or one `Problem` for each bad row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training_image.errors import InputError

SHOWN = 5
"""How many rows a message names; `check --json` lists all."""


class DataError(InputError):
    """The data cannot be used. ``code`` is the finding's code in ``ftlaunch check``."""

    def __init__(self, message: str, hint: str = "", code: str = "bad_data") -> None:
        super().__init__(message, hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that cannot be used."""

    code: str
    """empty, label_free, wrong_type, unknown_label, bad_text, bad_chat."""
    message: str
    """What is wrong, without the place."""
    split: str
    row: int
    """Row in its file, from 1 (the line, in a jsonl file)."""


HINTS: dict[str, str] = {
    "empty": "Remove these rows or fill them in; no row is dropped silently.",
    "label_free": "Give each row its answer, or remove the row; no row is dropped silently.",
    "wrong_type": "Make the column one type in every row, or name another one under data.columns.",
    "unknown_label": "Correct the label, or list it under task.labels.",
    "bad_text": "Write the text anew as valid Unicode.",
    "label_not_in_train": "Add training rows of that label, or take these rows out.",
    "bad_chat": "A chat is a list of {role, content} (system, user, assistant) that ends with the assistant's turn.",
}


def rows_text(rows: Sequence[int]) -> str:
    """``row 3`` or ``rows 3, 5, 9 and 4 more``."""
    shown = ", ".join(str(row) for row in rows[:SHOWN])
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


def by_kind(problems: Sequence[Problem]) -> list[tuple[Problem, list[int]]]:
    """Problems put together that differ in the row only, in order of appearance: the first one, and all rows."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.code, problem.split, problem.message), []).append(problem)
    return [(group[0], [problem.row for problem in group]) for group in groups.values()]


def raise_for(problems: Sequence[Problem], files: dict[str, str]) -> None:
    """Raise one DataError that names every kind of problem and the first rows of each; nothing if there are none."""
    if not problems:
        return
    kinds = by_kind(problems)
    lines = [f"{files[first.split]}: {rows_text(rows)}: {first.message}" for first, rows in kinds[:SHOWN]]
    if len(kinds) > SHOWN:
        lines.append(f"and {len(kinds) - SHOWN} more kinds of problem")
    raise DataError("\n".join(lines), HINTS[problems[0].code], problems[0].code)
