"""Job specs and data files for the tests of the data."""

from __future__ import annotations

import json
import random

from training_image.spec import Spec


def make_spec(type="classification", task=None, evaluate=None, model="m", **data):
    return Spec.model_validate(
        {
            "schema": 1,
            "job": "j",
            "model": {"id": model},
            "data": {"train": "train.jsonl", "min_rows": 1, **data},
            "task": {"type": type, **(task or {})},
            "evaluate": evaluate or {},
        }
    )


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ANIMALS = "cat dog horse cow goat sheep lion tiger wolf fox bear mouse".split()
FOODS = "bread cheese soup rice apple cake pasta butter honey salad onion lemon".split()
FILLERS = "today we saw the near old new a small big very one two some many round house river hill road".split()


def clean_rows(number, seed=0):
    """Two labels that many words tell apart; no two rows alike."""
    draw = random.Random(seed)
    rows, seen = [], set()
    while len(rows) < number:
        label = ("animal", "food")[len(rows) % 2]
        words = draw.choices(ANIMALS if label == "animal" else FOODS, k=2) + draw.choices(FILLERS, k=8)
        draw.shuffle(words)
        text = " ".join(words)
        if frozenset(words) not in seen:
            seen.add(frozenset(words))
            rows.append({"id": f"row-{seed}-{len(rows)}", "text": text, "label": label, "source": draw.choice("xyz")})
    return rows


def splits(folder, number=300, test=100, change=lambda rows: rows):
    """``train.jsonl`` and ``test.jsonl`` of `clean_rows`, the training rows changed."""
    rows = clean_rows(number + test)
    write(folder / "train.jsonl", change(rows[:number]))
    write(folder / "test.jsonl", rows[number:])
    return folder
