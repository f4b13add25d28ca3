"""Few-shot examples: as many of each label, by seed alone, and never more than fit."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_image.data.examples import Example
from training_image.errors import InputError
from training_image.evaluate.shots import DEFAULT_SHOTS, choose_shots, number_of_shots

LABELS = ["animal", "food", "plant"]


def rows(sizes: list[int]) -> list[Example]:
    """Rows whose text has as many letters as told, the labels in turn."""
    return [
        Example(str(n), n, (), LABELS[n % 3], (LABELS[n % 3],), "x" * size) for n, size in enumerate(sizes * 3, start=1)
    ]


def choose(train: list[Example], wanted: int, room: int, seed: int = 0) -> list[Example]:
    return choose_shots(train, LABELS, wanted, seed=seed, size=lambda row: len(row.text), room=room)


def test_one_a_label_by_default_and_a_multiple_of_the_labels_else() -> None:
    assert number_of_shots(None, LABELS) == 3
    assert number_of_shots(None, []) == DEFAULT_SHOTS
    assert number_of_shots(6, LABELS) == 6
    assert number_of_shots(5, []) == 5
    with pytest.raises(InputError, match=r"evaluate\.shots 4 is not a multiple of the 3 labels"):
        number_of_shots(4, LABELS)


@given(
    st.lists(st.integers(1, 50), min_size=3, max_size=12), st.integers(0, 3), st.integers(-5, 300), st.integers(0, 9)
)
def test_every_label_has_as_many_and_all_fit(sizes: list[int], each: int, room: int, seed: int) -> None:
    train = rows(sizes)
    shots = choose(train, 3 * each, room, seed)
    counts = Counter(row.answer for row in shots)
    assert len(set(counts.values())) <= 1
    assert set(counts) in (set(), set(LABELS))
    assert len(shots) <= 3 * each
    assert sum(len(row.text) for row in shots) <= max(room, 0)
    assert shots == choose(train, 3 * each, room, seed)
    shortest = sum(min(len(row.text) for row in train if row.answer == label) for label in LABELS)
    assert bool(shots) == (each > 0 and shortest <= room)


def test_another_seed_draws_others_and_no_order_of_the_labels_is_favoured() -> None:
    train = rows([5] * 20)
    draws = [choose(train, 3, 1000, seed) for seed in range(30)]
    assert len({tuple(row.id for row in draw) for draw in draws}) > 20
    assert {draw[-1].answer for draw in draws} == set(LABELS)
