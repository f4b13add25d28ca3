"""Hash split: which split a row belongs to follows from the row, not from its place in the file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence

from training_image.data.examples import Example
from training_image.data.normal import normalise


def content_key(example: Example) -> str:
    """SHA-256 of the input's normal form; equal for exact duplicates."""
    return hashlib.sha256(normalise(example.text).encode()).hexdigest()


def own_keys(examples: Sequence[Example], id_column: str) -> list[str]:
    """For each row the SHA-256 of its own id, where no other row has it, else its `content_key`."""
    ids = [example.fields.get(id_column) for example in examples]
    times = Counter(str(own) for own in ids if own is not None)
    return [
        hashlib.sha256(f"id:{own}".encode()).hexdigest()
        if own is not None and times[str(own)] == 1
        else content_key(example)
        for own, example in zip(ids, examples, strict=True)
    ]


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
    keys = own_keys(examples, id_column)
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
