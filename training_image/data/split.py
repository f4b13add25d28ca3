"""Hash split: which split a row belongs to follows from the row, not from its place in the file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence

from training_image.data.examples import Example
from training_image.data.normal import normalise


def content_key(example: Example) -> str:
    """SHA-256 of the input's normal form; equal for exact duplicates."""
    return _sha256(normalise(example.text))


def own_keys(examples: Sequence[Example], id_column: str) -> list[str]:
    """For each row the SHA-256 of its own id, where no other row has it, else its `content_key`."""
    ids = [example.fields.get(id_column) for example in examples]
    times = Counter(str(own) for own in ids if own is not None)
    return [
        _sha256(f"id:{own}") if own is not None and times[str(own)] == 1 else content_key(example)
        for own, example in zip(ids, examples, strict=True)
    ]


def assign(
    examples: Sequence[Example], validation: float, test: float, id_column: str = "id", group: str | None = None
) -> list[str]:
    """``train``, ``validation`` or ``test`` for each example, in order.

    Rows with equal normalised input, or with the same value in the column ``group``, stay together: they are joined
    (transitively). A row's key is that of its group's value, else its own (`own_keys`). The key of the joined rows,
    read as a number in [0, 1), decides: below ``test`` is test, in the next ``validation`` is validation. Where they
    have several keys, the least is hashed again: the least of many is small, and would put large sets into test. So
    neither the order of the rows nor rows added later move a row, except rows that bring another key into its set.
    """
    parents = list(range(len(examples)))
    keys = own_keys(examples, id_column)
    seen: dict[Hashable, int] = {}
    for index, example in enumerate(examples):
        marks: list[Hashable] = [content_key(example)]
        value = example.fields.get(group) if group is not None else None
        if value is not None:
            marks.append(("group", str(value)))
            keys[index] = _sha256(f"group:{value}")
        for mark in marks:
            _join(parents, index, seen.setdefault(mark, index))
    joined: dict[int, set[str]] = {}
    for index, key in enumerate(keys):
        joined.setdefault(_root(parents, index), set()).add(key)
    sides = {root: _side(_one_key(some), validation, test) for root, some in joined.items()}
    return [sides[_root(parents, index)] for index in range(len(examples))]


def _one_key(keys: set[str]) -> str:
    least = min(keys)
    return least if len(keys) == 1 else _sha256(least)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
