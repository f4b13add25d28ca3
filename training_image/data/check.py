"""All that can be said of a job's data before anything is paid for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_image.data.build import REQUIRED
from training_image.data.drift import label_drift, text_drift
from training_image.data.duplicates import Near, near_duplicates, near_leaks
from training_image.data.labels import shortcuts, suspects
from training_image.data.load import (
    Leak,
    Splits,
    collect,
    drop_duplicates,
    drop_leaks,
    find_leaks,
    leak_error,
    limit_rows,
    repeats,
    set_errors,
)
from training_image.data.normal import normalise
from training_image.data.problems import HINTS, DataError, Problem, by_kind, rows_text
from training_image.data.render import Renderer
from training_image.data.rendered import check_rendering
from training_image.data.renderers import renderer_of
from training_image.data.report import Report, at
from training_image.data.tokenizer import load_config, load_tokenizer
from training_image.spec import Spec

FEW_TEST_ROWS = 50
RARE_LABEL = 5
"""Training rows of a label below which it is hardly learned."""
UNEVEN = 20.0
"""Times that the most frequent label may be more frequent than the rarest."""


def check(spec: Spec, data_dir: Path, tokenizer: Any | None = None) -> Report:
    """Read, split, compare, render and count every row. Needs a tokenizer (the model's own by default), no weights.

    Never raises for what is wrong with data or model: that is what the findings are for.
    """
    report = Report()
    try:
        splits, problems = collect(spec, data_dir)
    except DataError as error:
        _refuse(report, error)
        return report
    report.counts = {name: dict.fromkeys(_KINDS, 0) for name in splits.counts}
    _problems(report, splits, problems)
    _repeats(report, spec, splits)
    _leaks(report, spec, splits)
    if not problems:
        for fault in set_errors(spec, splits):
            _refuse(report, fault)
    _nears(report, spec, splits)
    if spec.task.type == "classification":
        _labels(report, spec, splits)
    _drift(report, spec, splits)
    limit_rows(spec, splits)
    try:
        if tokenizer is None:
            own, config = load_tokenizer(spec, data_dir), load_config(spec, data_dir)
            check_rendering(report, spec, splits, renderer_of(own, spec, splits.labels, config), config)
        else:
            check_rendering(report, spec, splits, Renderer(tokenizer, spec, splits.labels))
    except DataError as error:
        _refuse(report, error)
    for name, rows in splits.named():
        if spec.task.type == "classification":
            report.counts[name]["labels"] = dict(sorted(Counter(row.answer for row in rows).items()))
        report.counts[name] = splits.counts[name] | report.counts[name]
    return report


_KINDS = (
    "duplicate",
    "near_duplicate",
    "leaked",
    "near_leaked",
    "empty",
    "label_free",
    "truncated",
    "too_long",
    "fully_masked",
    "without_eos",
    "double_bos",
)


def _refuse(report: Report, error: DataError) -> None:
    report.add("error", error.code, error.message, hint=error.hint)


def _problems(report: Report, splits: Splits, problems: Sequence[Problem]) -> None:
    """Rows that cannot be used."""
    for first, rows in by_kind(problems):
        counts = report.counts[first.split]
        counts[first.code] = counts.get(first.code, 0) + len(rows)
        report.add(
            "error",
            first.code,
            f"{splits.files[first.split]}: {rows_text(rows)}: {first.message}",
            [{"split": first.split, "row": row} for row in rows],
            HINTS[first.code],
        )


def _repeats(report: Report, spec: Spec, splits: Splits) -> None:
    """Exact repeats in each split, and inputs that stand with several answers."""
    for name, rows in splits.named():
        pairs = repeats(rows)
        report.counts[name]["duplicate"] = len(pairs)
        if pairs:
            dropped = name == "train" and spec.data.on_duplicate == "drop"
            report.add(
                "note" if dropped else "warning",
                "duplicate",
                f"{len(pairs)} rows of {name} repeat an earlier one ({splits.files[name]}: "
                f"{rows_text([later.row for later, _ in pairs])})" + ("; dropped, as asked" if dropped else ""),
                [at(name, later, like={"split": name, "row": first.row}) for later, first in pairs],
                "" if dropped else "data.on_duplicate: drop leaves out those of train.",
            )
    if spec.task.type == "classification":
        _contradictions(report, splits)
    if spec.data.on_duplicate == "drop":
        drop_duplicates(splits)


def _contradictions(report: Report, splits: Splits) -> None:
    answers: dict[str, set[str]] = {}
    everything = [(name, row) for name, rows in splits.named() for row in rows]
    for _, row in everything:
        answers.setdefault(normalise(row.text), set()).add(row.answer)
    found = [at(name, row, label=row.answer) for name, row in everything if len(answers[normalise(row.text)]) > 1]
    if found:
        report.add(
            "warning",
            "contradiction",
            f"{len(found)} rows have a text that stands with another label elsewhere",
            found,
            "Decide on one label for each text.",
        )


def _leaks(report: Report, spec: Spec, splits: Splits) -> None:
    leaks = find_leaks(splits)
    for split in ("train", "validation"):
        report.counts[split]["leaked"] = sum(leak.split == split for leak in leaks)
    if leaks:
        error = leak_error(leaks, splits.files)
        if spec.data.on_leak == "refuse":
            report.add("error", "leak", error.message, [_leaked(leak) for leak in leaks], error.hint)
        else:
            report.add("note", "leak", f"{error.message}; dropped, as asked", [_leaked(leak) for leak in leaks])
            drop_leaks(splits, leaks)
    _shared_groups(report, spec, splits)


def _leaked(leak: Leak) -> dict[str, Any]:
    return at(leak.split, leak.example, like={"split": leak.other, "row": leak.kept.row})


def _shared_groups(report: Report, spec: Spec, splits: Splits) -> None:
    if spec.data.group is None:
        return
    seen = {str(row.fields.get(spec.data.group)): row for row in splits.train}
    found = [
        at(name, row, group=str(row.fields[spec.data.group]))
        for name, rows in splits.named()
        for row in rows
        if name != "train" and row.fields.get(spec.data.group) is not None and str(row.fields[spec.data.group]) in seen
    ]
    if found:
        report.add(
            "warning",
            "group_leak",
            f"{len(found)} validation or test rows share a value of {spec.data.group!r} with training rows",
            found,
            "Leave data.validation and data.test out, so that groups are kept together, or split the files by group.",
        )


def _nears(report: Report, spec: Spec, splits: Splits) -> None:
    threshold = spec.data.near_duplicate
    for name, rows in splits.named():
        found = near_duplicates(rows, threshold)
        report.counts[name]["near_duplicate"] = len(found)
        if found:
            refs = [_near(name, near, name) for near in found]
            message = (
                f"{len(found)} rows of {name} are nearly the same as an earlier one (Jaccard {threshold:g} on words)"
            )
            report.add("warning", "near_duplicate", message, refs, "Look whether they add anything.")
    refs = []
    for name, others in (("train", ("test", "validation")), ("validation", ("test",))):
        rows = splits.train if name == "train" else splits.validation
        found_in: set[str] = set()
        for other in others:
            kept = splits.test if other == "test" else splits.validation
            for near in near_leaks(rows, kept, threshold):
                if near.example.id not in found_in:
                    found_in.add(near.example.id)
                    refs.append(_near(name, near, other))
        report.counts[name]["near_leaked"] = len(found_in)
    if refs:
        report.add(
            "warning",
            "near_leak",
            f"{len(refs)} rows are nearly the same as a row that the model is judged on (Jaccard {threshold:g})",
            refs,
            "Remove them from train, or the evaluation flatters the model.",
        )


def _near(split: str, near: Near, other: str) -> dict[str, Any]:
    like = {"split": other, "row": near.other.row}
    return at(split, near.example, like=like, similarity=round(near.similarity, 3))


def _labels(report: Report, spec: Spec, splits: Splits) -> None:
    counts = Counter(row.answer for row in splits.train)
    rare = [label for label in splits.labels if 0 < counts[label] < RARE_LABEL]
    if rare:
        names = ", ".join(f"{label!r} ({counts[label]})" for label in rare)
        report.add("warning", "rare_label", f"few training rows of {names}", hint="Add rows of these labels.")
    if counts and max(counts.values()) > UNEVEN * min(counts.values()):
        (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
        message = f"the labels are uneven: {most!r} has {many} training rows, {least!r} {few}"
        report.add("warning", "imbalance", message, hint="Judge by macro_f1, and add rows of the rare labels.")
    folded = Counter(label.casefold() for label in splits.labels)
    twins = [label for label in splits.labels if folded[label.casefold()] > 1]
    if twins:
        message = f"labels that differ in case only: {', '.join(map(repr, twins))}"
        report.add("warning", "similar_labels", message, hint="Write each label in one way.")
    _suspects(report, splits)
    known = {spec.data.columns.get(role, role) for role in (*REQUIRED["classification"], "system")}
    for found in shortcuts(splits.train, sorted(known)):
        of_label = f" the label {found.label!r}" if found.label else " the label"
        report.add(
            "warning",
            f"shortcut_{found.kind}",
            f"{found.kind} {found.name!r} alone predicts{of_label} (score {found.score:.2f}, in {found.rows} rows)",
            hint="Ask whether it will be there, and mean the same, where the model is used.",
        )


def _suspects(report: Report, splits: Splits) -> None:
    """Within train, and within test where it is large enough to say something."""
    for name, rows in splits.named():
        found = suspects(rows)
        if found:
            report.add(
                "warning",
                "suspect_label",
                f"{len(found)} rows of {name} look mislabelled: a classifier trained on the other rows is sure of "
                "another label, more often than honest mistakes would have it",
                [
                    at(
                        name,
                        suspect.example,
                        label=suspect.example.answer,
                        suggested=suspect.suggested,
                        confidence=round(suspect.confidence, 3),
                    )
                    for suspect in found
                ],
                "Look at these rows, the surest come first.",
            )


def _drift(report: Report, spec: Spec, splits: Splits) -> None:
    if 0 < len(splits.test) < FEW_TEST_ROWS:
        message = f"{len(splits.test)} test rows give a wide interval; a small gain will stay inconclusive"
        report.add("note", "few_test_rows", message)
    text = text_drift(splits.train, splits.test)
    if text is not None and text.drifted:
        low, high = text.ci95
        report.add(
            "warning",
            "drift",
            f"test rows are of another kind than training rows: their words tell them apart with AUC {text.auc:.2f} "
            f"({low:.2f} to {high:.2f})",
            hint="Fine if the model shall stand a change; else split one pool of rows.",
        )
    if spec.task.type != "classification":
        return
    labels = label_drift(splits.train, splits.test)
    if labels is not None and labels.drifted:
        report.add(
            "warning",
            "label_drift",
            f"the labels are distributed otherwise in test than in train (total variation {labels.distance:.2f}, "
            f"p {labels.p:.1g})",
            hint="Macro-F1 stands it; the calibration on validation rows may not.",
        )
