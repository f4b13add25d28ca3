"""Hash split: which split a row belongs to follows from the row, not from its place in the file."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

from training_image.data.examples import Example
from training_image.data.normal import normalise


def content_key(example: Example) -> str:
    """SHA-256 of the input's normal form; equal for exact duplicates."""
    return hashlib.sha256(normalise(example.text).encode()).hexdigest()


def own_key(example: Example, id_column: str) -> str:
    """SHA-256 of the row's own id where it has one, else `content_key`: what `assign` and ``max_rows`` sort by."""
    own = example.fields.get(id_column)
    return content_key(example) if own is None else hashlib.sha256(f"id:{own}".encode()).hexdigest()


def assign(
    examples: Sequence[Example], validation: float, test: float, id_column: str = "id", group: str | None = None
) -> list[str]:
    """``train``, ``validation`` or ``test`` for each example, in order.

    Rows with equal normalised input, or with the same value in the column ``group``, stay together: they are joined
    (transitively), and the least key of the joined rows, read as a number in [0, 1), decides: below ``test`` is test,
    in the next ``validation`` is validation. So neither the order of the rows nor rows added later move a row, except
    rows that join two groups.
    """
    parents = list(range(len(examples)))
    seen: dict[Hashable, int] = {}
    for index, example in enumerate(examples):
        marks: list[Hashable] = [content_key(example)]
        value = example.fields.get(group) if group is not None else None
        if value is not None:
            marks.append(("group", str(value)))
        for mark in marks:
            _join(parents, index, seen.setdefault(mark, index))
    keys = [own_key(example, id_column) for example in examples]
    least: dict[int, str] = {}
    for index, key in enumerate(keys):
        root = _root(parents, index)
        least[root] = min(key, least.get(root, key))
    return [_side(least[_root(parents, index)], validation, test) for index in range(len(examples))]


def _side(key: str, validation: float, test: float) -> str:
    share = int(key[:13], 16) / 16**13
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _join(parents: list[int], one: int, other: int) -> None:
    parents[_root(parents, one)] = _root(parents, other)
