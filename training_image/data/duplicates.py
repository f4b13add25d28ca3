"""Near-duplicates and near-leaks: MinHash to find, exact Jaccard on words to confirm.

Exact repeats and leaks are `training_image.data.load`'s; what is found here warns and is never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training_image.data.examples import Example
from training_image.data.normal import normalise, words

PERMUTATIONS = 128
MISSES = 0.9
"""Weight of missed pairs against needless ones when datasketch lays out its bands: needless ones cost a comparison."""


@dataclass(frozen=True, slots=True)
class Near:
    """A row that says nearly the same as another one."""

    example: Example
    other: Example
    similarity: float
    """Exact Jaccard similarity of the two sets of words, 0 to 1."""


def near_duplicates(rows: Sequence[Example], threshold: float) -> list[Near]:
    """For each row an earlier one that is near (Jaccard on words at least ``threshold``) and not an exact repeat."""
    return _search(rows, rows, threshold, within=True)


def near_leaks(rows: Sequence[Example], kept: Sequence[Example], threshold: float) -> list[Near]:
    """For each of ``rows`` one of ``kept`` (test, validation) that is near and not an exact repeat."""
    return _search(rows, kept, threshold, within=False)


def _search(rows: Sequence[Example], among: Sequence[Example], threshold: float, within: bool) -> list[Near]:
    from datasketch import MinHashLSH

    if not rows or not among:
        return []
    # Above 0.98 the banding has no solution; the exact comparison below keeps the threshold that was asked for.
    lsh = MinHashLSH(threshold=min(threshold, 0.98), num_perm=PERMUTATIONS, weights=(1 - MISSES, MISSES))
    sets = [words(row.text) for row in among]
    hashes = _hashes(sets)
    normal = [normalise(row.text) for row in among]
    if not within:
        _insert(lsh, hashes, normal)
        ours = [words(row.text) for row in rows]
        queries = list(zip(rows, ours, _hashes(ours), [normalise(row.text) for row in rows], strict=True))
    else:
        queries = list(zip(rows, sets, hashes, normal, strict=True))
    found = []
    seen: set[str] = set()
    for index, (row, own, hashed, text) in enumerate(queries):
        if within and text in seen:
            continue
        for place in sorted(lsh.query(hashed)):
            similarity = len(own & sets[place]) / len(own | sets[place])
            if similarity >= threshold and normal[place] != text:
                found.append(Near(row, among[place], similarity))
                break
        if within:
            seen.add(text)
            lsh.insert(index, hashed)
    return found


def _insert(lsh: object, hashes: Sequence[object], normal: Sequence[str]) -> None:
    seen: set[str] = set()
    for place, (hashed, text) in enumerate(zip(hashes, normal, strict=True)):
        if text not in seen:
            seen.add(text)
            lsh.insert(place, hashed)  # type: ignore[attr-defined]


def _hashes(sets: Sequence[frozenset[str]]) -> list[object]:
    from datasketch import MinHash

    encoded = [[word.encode() for word in found] for found in sets]
    return list(MinHash.generator(encoded, num_perm=PERMUTATIONS))
