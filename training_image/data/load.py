"""The splits of a job: read, built, split, and cleaned as the job file asks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training_image.data.build import Builder, any_unanswerable, training_labels
from training_image.data.examples import Example
from training_image.data.normal import normalise
from training_image.data.problems import DataError, Problem, raise_for, rows_text
from training_image.data.read import Table, read_table, require_column
from training_image.data.split import assign, content_key, own_keys
from training_image.spec import Spec

NAMES = ("train", "validation", "test")


@dataclass(slots=True)
class Splits:
    """The rows of a job, ready to be rendered."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: list[str] = field(default_factory=list)
    """Classification: all labels, in order; else empty."""
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """``{"train": {"rows", "used", "dropped": {reason: n}}, ...}``; dropped is only what the job file asked to drop."""
    files: dict[str, str] = field(default_factory=dict)
    """The file that each split's row numbers are of."""

    def named(self) -> Iterable[tuple[str, list[Example]]]:
        """``(name, examples)`` of the three splits."""
        return (("train", self.train), ("validation", self.validation), ("test", self.test))

    def keep(self, name: str, kept: list[Example], reason: str) -> None:
        """Put ``kept`` in the place of a split; the difference is counted as dropped for ``reason``."""
        before = {"train": self.train, "validation": self.validation, "test": self.test}[name]
        gone = len(before) - len(kept)
        before[:] = kept
        self.counts[name]["used"] = len(kept)
        if gone:
            dropped = self.counts[name]["dropped"]
            dropped[reason] = dropped.get(reason, 0) + gone


def load_splits(spec: Spec, data_dir: Path) -> Splits:
    """Read all rows of a job and apply ``on_duplicate``, ``on_leak``, ``min_rows`` and ``max_rows``.

    Raises DataError (an InputError) for files that cannot be read, rows that cannot be used, leaks that the job file
    does not ask to drop, and sets that cannot be trained on. Nothing is dropped silently.
    """
    splits, problems = collect(spec, data_dir)
    raise_for(problems, splits.files)
    if spec.data.on_duplicate == "drop":
        drop_duplicates(splits)
    leaks = find_leaks(splits)
    if leaks and spec.data.on_leak == "refuse":
        raise leak_error(leaks, splits.files)
    drop_leaks(splits, leaks)
    for error in set_errors(spec, splits):
        raise error
    limit_rows(spec, splits)
    return splits


def collect(spec: Spec, data_dir: Path) -> tuple[Splits, list[Problem]]:
    """Read and split all rows, and drop none: the usable examples, and one Problem for each row that is not.

    Raises DataError where a file or a column is not there or cannot be read.
    """
    sources = {"train": spec.data.train, "validation": spec.data.validation, "test": spec.data.test}
    tables = {name: read_table(source, data_dir) for name, source in sources.items() if source is not None}
    builder = _builder(spec, tables)
    built: dict[str, list[Example]] = {name: [] for name in NAMES}
    problems: list[Problem] = []
    for name, table in tables.items():
        for row, number in zip(table.rows, table.numbers, strict=True):
            made = builder.build(row, number, name)
            if isinstance(made, Problem):
                problems.append(made)
            else:
                built[name].append(made)
    _split_off(spec, built)
    counts = {name: {"rows": len(rows), "used": len(rows), "dropped": {}} for name, rows in built.items()}
    files = {name: tables.get(name, tables["train"]).name for name in NAMES}
    for rows in built.values():
        _make_ids_unique(rows)
    splits = Splits(built["train"], built["validation"], built["test"], builder.labels, counts, files)
    return splits, problems


def _builder(spec: Spec, tables: dict[str, Table]) -> Builder:
    every_row = [row for table in tables.values() for row in table.rows]
    builder = Builder(spec, training_labels(spec, tables["train"].rows), any_unanswerable(spec, every_row))
    for table in tables.values():
        builder.require_columns(table)
    if spec.data.group is not None:
        require_column(tables["train"], spec.data.group, "group")
    for column in spec.evaluate.slices:
        require_column(tables.get("test", tables["train"]), column, "evaluate.slices")
    return builder


def _split_off(spec: Spec, built: dict[str, list[Example]]) -> None:
    """Move rows of train to the splits that have no file of their own."""
    validation = spec.data.split.validation if spec.data.validation is None else 0.0
    test = spec.data.split.test if spec.data.test is None else 0.0
    if validation + test >= 1.0:
        raise DataError("data.split leaves nothing to train on", "Keep the sum of the shares below 1.", "bad_split")
    id_column = spec.data.columns.get("id", "id")
    sides = assign(built["train"], validation, test, id_column, spec.data.group)
    rows = built["train"]
    built["train"] = []
    for example, side in zip(rows, sides, strict=True):
        own = example if example.id != f"train-{example.row}" else replace(example, id=f"{side}-{example.row}")
        built[side].append(own)


def _make_ids_unique(rows: list[Example]) -> None:
    """Predictions are told apart by id: a repeated one gets its row number behind it."""
    seen: set[str] = set()
    for index, example in enumerate(rows):
        if example.id in seen:
            rows[index] = replace(example, id=f"{example.id}-{example.row}")
        seen.add(example.id)


def repeats(rows: Sequence[Example]) -> list[tuple[Example, Example]]:
    """``(later, first)`` for each row whose normalised input and answer an earlier row has."""
    first: dict[tuple[str, str], Example] = {}
    pairs = []
    for example in rows:
        earlier = first.setdefault((normalise(example.text), normalise(example.answer)), example)
        if earlier is not example:
            pairs.append((example, earlier))
    return pairs


def drop_duplicates(splits: Splits) -> None:
    """Drop exact repeats (input and answer) inside train; the first stays."""
    gone = {id(later) for later, _ in repeats(splits.train)}
    splits.keep("train", [example for example in splits.train if id(example) not in gone], "duplicate")


@dataclass(frozen=True, slots=True)
class Leak:
    """A row whose normalised input stands in another split, too."""

    split: str
    """The split that would lose the row: train, or validation for a row that is in test."""
    example: Example
    other: str
    """The split that keeps it."""
    kept: Example


def find_leaks(splits: Splits) -> list[Leak]:
    """Each train row whose input stands in test or validation, and each validation row whose input stands in test."""
    kept = {"validation": splits.validation, "test": splits.test}
    by_key = {name: {content_key(row): row for row in reversed(rows)} for name, rows in kept.items()}
    leaks = []
    for name, others in (("train", ("test", "validation")), ("validation", ("test",))):
        for row in splits.train if name == "train" else splits.validation:
            key = content_key(row)
            found = next((other for other in others if key in by_key[other]), None)
            if found is not None:
                leaks.append(Leak(name, row, found, by_key[found][key]))
    return leaks


def leak_error(leaks: Sequence[Leak], files: dict[str, str]) -> DataError:
    """The refusal of a job whose evaluation rows stand in its training rows."""
    parts = []
    by_pair: dict[tuple[str, str], list[Leak]] = defaultdict(list)
    for leak in leaks:
        by_pair[leak.split, leak.other].append(leak)
    for (split, other), found in by_pair.items():
        first = found[0]
        parts.append(
            f"{len(found)} inputs of {split} stand in {other} too: {files[split]}: "
            f"{rows_text([leak.example.row for leak in found])} "
            f"(row {first.example.row} is row {first.kept.row} of {files[other]})"
        )
    hint = "Remove them, or set data.on_leak: drop_train to leave them out of the training (they are counted)."
    return DataError("\n".join(parts), hint, "leak")


def drop_leaks(splits: Splits, leaks: Sequence[Leak]) -> None:
    """Drop the leaked rows from the split that must lose them."""
    gone = {id(leak.example) for leak in leaks}
    for name, rows in (("train", splits.train), ("validation", splits.validation)):
        splits.keep(name, [example for example in rows if id(example) not in gone], "leaked")


def set_errors(spec: Spec, splits: Splits) -> list[DataError]:
    """What makes the rows as a whole unusable: too few, one class, an empty split, a label without training rows."""
    errors = []
    least = min(spec.data.min_rows, spec.data.max_rows or spec.data.min_rows)
    if len(splits.train) < least:
        errors.append(
            DataError(
                f"{splits.files['train']}: {len(splits.train)} usable training rows, data.min_rows asks for {least}",
                "Add rows, or lower data.min_rows if you mean it.",
                "too_few_rows",
            )
        )
    if not splits.test and spec.goal == "tune":
        errors.append(
            DataError(
                "there is no test row, so nothing could be said about the model",
                "Give data.test a file, raise data.split.test, or add rows.",
                "no_test_rows",
            )
        )
    if spec.task.type == "classification":
        errors += _label_errors(splits)
    return errors


def _label_errors(splits: Splits) -> list[DataError]:
    if len(splits.labels) < 2:
        found = f"{splits.files['train']}: " + (
            f"one label only ({splits.labels[0]!r})" if splits.labels else "no label"
        )
        return [DataError(found, "A classification needs at least two labels.", "one_class")]
    trained = {example.answer for example in splits.train}
    absent = [label for label in splits.labels if label not in trained]
    if not absent:
        return []
    elsewhere = sum(example.answer in absent for example in (*splits.validation, *splits.test))
    names = ", ".join(map(repr, absent))
    return [
        DataError(
            f"no training row has the label {names} ({elsewhere} rows elsewhere have it)",
            "Add training rows of it, give validation and test files of your own instead of the hash split, or take "
            "the label out of the data and of task.labels.",
            "label_not_in_train",
        )
    ]


def limit_rows(spec: Spec, splits: Splits) -> None:
    """Keep at most ``data.max_rows`` of each split: those with the least hashes, for classification label by label in
    turn, so that a small part still has every label. The rows stay in order; the rest counts as dropped."""
    limit = spec.data.max_rows
    if limit is None:
        return
    id_column = spec.data.columns.get("id", "id")
    by_label = spec.task.type == "classification"
    for name, rows in splits.named():
        turns: dict[str, int] = defaultdict(int)
        ranked: list[tuple[int, int, Example]] = []
        keys = own_keys(rows, id_column)
        for _, row in sorted(zip(keys, rows, strict=True), key=lambda pair: (pair[0], pair[1].row)):
            label = row.answer if by_label else ""
            ranked.append((turns[label] if by_label else 0, len(ranked), row))
            turns[label] += 1
        chosen = {id(row) for *_, row in sorted(ranked, key=lambda entry: entry[:2])[:limit]}
        splits.keep(name, [row for row in rows if id(row) in chosen], "max_rows")
