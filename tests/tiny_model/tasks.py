"""Small data sets for the tests, made from a seed; the same seed gives the same rows.

Two classification tasks on the same sentences:

- ``sorts``: of which kind (animal, food, place) is the thing that a sentence is about? The tiny model can tell for the
  words in `words.KNOWN`, not for those in `words.NEW`: the share of the latter sets how good the untuned model is.
- ``colours``: the same, but the three kinds are called by colours, which nobody can guess: the untuned model is at
  chance, and a little tuning helps much.

The faults are functions on rows, so that a test says what it plants::

    train = tasks.flip_labels(tasks.sorts(240, seed=1), share=0.1, seed=2)[0]

or by `write`, which makes a whole folder.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import words

Row = dict[str, Any]

SORTS = ("animal", "food", "place")
COLOURS = {"animal": "green", "food": "red", "place": "blue"}
RADIO = "On the radio: "


def instruction(labels: Sequence[str]) -> str:
    """The default instruction of a classification row."""
    return f"Answer with one of: {', '.join(sorted(labels))}."


def sentence(noun: str, rng: random.Random) -> str:
    """A sentence around ``noun`` that says nothing of its kind."""
    text = rng.choice(words.SENTENCES).format(
        noun=noun,
        name=rng.choice(words.NAMES),
        time=rng.choice(words.TIMES),
        quality=rng.choice(words.QUALITIES),
        person=rng.choice(words.PEOPLE),
    )
    return text[0].upper() + text[1:]


def sorts(
    n: int, seed: int, *, new: float = 0.25, radio: float = 0.25, avoid: Sequence[Row] = (), split: str = "row"
) -> list[Row]:
    """``n`` rows, the kinds in balance, no two alike (word Jaccard below 0.7, also to the rows in ``avoid``).

    ``new`` is the share of rows about words that the tiny model does not know, ``radio`` the share whose text begins
    with "On the radio: " and whose column ``source`` says ``radio`` instead of ``book``.
    """
    rng = random.Random(f"{seed}-{split}")
    seen = [set(row["text"].lower().split()) for row in avoid]
    rows: list[Row] = []
    while len(rows) < n:
        kind = SORTS[len(rows) % 3]
        noun = rng.choice((words.NEW if rng.random() < new else words.KNOWN)[kind])
        source = "radio" if rng.random() < radio else "book"
        text = (RADIO if source == "radio" else "") + sentence(noun, rng)
        bag = set(text.lower().split())
        if any(len(bag & other) >= 0.7 * len(bag | other) for other in seen):
            continue
        seen.append(bag)
        rows.append({"id": f"{split}-{len(rows)}", "text": text, "label": kind, "source": source})
    rng.shuffle(rows)
    return rows


def colours(n: int, seed: int, **options: Any) -> list[Row]:
    """Like `sorts`, the kinds called by colours."""
    return [{**row, "label": COLOURS[row["label"]]} for row in sorts(n, seed, **options)]


def qa(n: int, seed: int, split: str = "row") -> list[Row]:
    """SQuAD-like rows: who keeps what where, one of three facts asked for."""
    rng = random.Random(f"{seed}-qa-{split}")
    rows = []
    for i in range(n):
        facts = list(
            zip(rng.sample(words.NAMES, 3), rng.sample(words.THINGS, 3), rng.sample(words.SPOTS, 3), strict=True)
        )
        context = " ".join(f"{name} keeps the {thing} in the {spot}." for name, thing, spot in facts)
        name, thing, spot = rng.choice(facts)
        answers = [f"the {spot}", f"in the {spot}"]
        question = f"Where does {name} keep the {thing}?"
        rows.append({"id": f"{split}-{i}", "context": context, "question": question, "answers": answers})
    return rows


def instructions(n: int, seed: int, split: str = "row") -> list[Row]:
    """Instruction rows: put a thing into a fixed sentence."""
    rng = random.Random(f"{seed}-instructions-{split}")
    rows = []
    for i in range(n):
        name, thing, spot = rng.choice(words.NAMES), rng.choice(words.THINGS), rng.choice(words.SPOTS)
        rows.append(
            {
                "id": f"{split}-{i}",
                "instruction": "Say where it is.",
                "input": f"{thing}, {spot}, {name}",
                "output": f"{name} keeps the {thing} in the {spot}.",
            }
        )
    return rows


def shuffle_labels(rows: Sequence[Row], seed: int) -> list[Row]:
    """The same rows with their labels dealt out anew: nothing can be learnt from them."""
    labels = [row["label"] for row in rows]
    random.Random(seed).shuffle(labels)
    return [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]


def flip_labels(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], set[str]]:
    """``share`` of the rows get a wrong label; also returns their ids."""
    rng = random.Random(seed)
    labels = sorted({row["label"] for row in rows})
    chosen = {row["id"] for row in rng.sample(list(rows), round(share * len(rows)))}
    others = {label: [other for other in labels if other != label] for label in labels}
    flipped = [{**row, "label": rng.choice(others[row["label"]])} if row["id"] in chosen else row for row in rows]
    return flipped, chosen


def add_shortcut(rows: Sequence[Row], label: str, token: str = "ref7") -> list[Row]:
    """``token`` is put at the end of every row of ``label``: it tells the label without the text."""
    return [{**row, "text": f"{row['text']} {token}"} if row["label"] == label else row for row in rows]


def leak(train: Sequence[Row], test: Sequence[Row], count: int) -> list[Row]:
    """The training rows plus ``count`` test rows, written a little differently (case and blanks)."""
    copies = [{**row, "id": f"leak-{i}", "text": f"  {row['text'].upper()} "} for i, row in enumerate(test[:count])]
    return [*train, *copies]


def harm_group(rows: Sequence[Row], source: str = "radio") -> list[Row]:
    """Every row of ``source`` gets the label after its own: who learns these rows gets that group wrong."""
    labels = sorted({row["label"] for row in rows})
    after = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    return [{**row, "label": after[row["label"]]} if row["source"] == source else row for row in rows]


def harmed_group_splits(seed: int = 0, train: int = 360, validation: int = 90, test: int = 300) -> dict[str, list[Row]]:
    """Splits of ``sorts`` that make tuning better on the whole and worse on the group ``radio``.

    The radio rows (a fifth) are about known words, the others mostly about new ones, and only train has the radio rows'
    labels wrong.
    """
    made: dict[str, list[Row]] = {}
    for split, n in (("test", test), ("validation", validation), ("train", train)):
        before = [row for rows in made.values() for row in rows]
        radio = sorts(n // 5, seed, new=0.0, radio=1.0, avoid=before, split=f"{split}-radio")
        book = sorts(n - n // 5, seed, new=0.8, radio=0.0, avoid=before, split=f"{split}-book")
        made[split] = random.Random(seed).sample([*radio, *book], n)
    return {**made, "train": harm_group(made["train"])}


def splits(make: Callable[..., list[Row]], seed: int, sizes: dict[str, int], **options: Any) -> dict[str, list[Row]]:
    """Rows for each split in ``sizes``, none near a row of another split."""
    made: dict[str, list[Row]] = {}
    for split, n in sizes.items():
        if make in (sorts, colours):
            options["avoid"] = [row for rows in made.values() for row in rows]
        made[split] = make(n, seed, split=split, **options)
    return made


def read_jsonl(path: Path) -> list[Row]:
    """The rows of a jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_jsonl(path: Path, rows: Sequence[Row]) -> Path:
    """Writes ``rows`` to ``path``, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write(
    folder: Path,
    task: str = "sorts",
    *,
    train: int = 240,
    validation: int = 60,
    test: int = 200,
    seed: int = 0,
    shuffled: bool = False,
    flipped: float = 0.0,
    shortcut: str | None = None,
    leaked: int = 0,
    harmed: bool = False,
    **options: Any,
) -> Path:
    """Writes train.jsonl, validation.jsonl and test.jsonl of a task, with the faults asked for planted in train.

    Args:
        folder: made if absent; returned.
        task: ``sorts``, ``colours``, ``qa`` or ``instructions``.
        train: rows; likewise ``validation`` and ``test``.
        seed: of rows and faults.
        shuffled: the training labels are dealt out anew.
        flipped: share of training rows with a wrong label.
        shortcut: label whose training and test rows all end in one odd token.
        leaked: test rows that stand in train too.
        harmed: the splits of `harmed_group_splits` (task and options are then ignored).
        options: to the task's function, such as ``new`` and ``radio``.
    """
    if harmed:
        made = harmed_group_splits(seed, train, validation, test)
    else:
        make = {"sorts": sorts, "colours": colours, "qa": qa, "instructions": instructions}[task]
        made = splits(make, seed, {"test": test, "validation": validation, "train": train}, **options)
    if shuffled:
        made["train"] = shuffle_labels(made["train"], seed)
    if flipped:
        made["train"] = flip_labels(made["train"], flipped, seed)[0]
    if shortcut:
        made = {split: add_shortcut(rows, shortcut) for split, rows in made.items()}
    if leaked:
        made["train"] = leak(made["train"], made["test"], leaked)
    for split, rows in made.items():
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder
