"""Which training rows become few-shot examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from training_image.data.examples import Example
from training_image.errors import InputError

DEFAULT_SHOTS = 4
"""Examples where the task has no labels."""


def number_of_shots(asked: int | None, labels: Sequence[str]) -> int:
    """Examples wanted: as asked, else one a label, else four. Raises InputError if not a multiple of the labels."""
    if asked is None:
        return len(labels) or DEFAULT_SHOTS
    if labels and asked % len(labels):
        raise InputError(
            f"evaluate.shots {asked} is not a multiple of the {len(labels)} labels",
            hint=f"Take {len(labels)} or {2 * len(labels)}, so that no label is favoured.",
        )
    return asked


def choose_shots(
    train: Sequence[Example],
    labels: Sequence[str],
    wanted: int,
    *,
    seed: int,
    size: Callable[[Example], int],
    room: int,
) -> list[Example]:
    """The few-shot examples, as many of each label, in a seeded order, fitting into ``room`` tokens together.

    Drawn by seed alone, not picked for quality: the baseline should be what a user gets who takes some rows. Where the
    draw is too long the shortest rows are taken instead, and where those are too long, fewer. ``size`` gives an
    example's tokens. A label without training rows has no example.
    """
    draw = random.Random(f"{seed}/shots")
    groups = [[row for row in train if row.answer == label] for label in labels] if labels else [list(train)]
    each = wanted // len(groups)
    for group in groups:
        draw.shuffle(group)
    shots = [row for group in groups for row in group[:each]]
    if sum(map(size, shots)) > room:
        shortest = [sorted(group, key=lambda row: (size(row), row.id)) for group in groups]
        counts = range(each, -1, -1)
        choices = ([row for group in shortest for row in group[:count]] for count in counts)
        shots = next(choice for choice in choices if sum(map(size, choice)) <= max(room, 0))
    # Not in the order of the labels: a model leans towards what stood last.
    draw.shuffle(shots)
    return shots
