"""The part of the check that looks at token ids: lengths, masks, ends, and three samples to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training_image.data.examples import IGNORED, Example, Sample
from training_image.data.fit import long_error, require_embeddings
from training_image.data.load import Splits, set_errors
from training_image.data.problems import DataError, rows_text
from training_image.data.render import Renderer, TooLong
from training_image.data.renderers import AnyRenderer
from training_image.data.report import Report, RowRef, at
from training_image.spec import Spec

PERCENTILES = (5, 25, 50, 75, 95, 99, 100)


def check_rendering(report: Report, spec: Spec, splits: Splits, renderer: AnyRenderer, config: Any = None) -> None:
    """Render every row and count. Raises DataError for a tokenizer or template that cannot be used at all.

    ``config``: the model's own, by which every token must have an embedding; None: unknown.
    """
    rendered = {name: _render(report, spec, splits, renderer, name) for name in ("train", "validation", "test")}
    if any("too_long" in counts["dropped"] for counts in splits.counts.values()):
        for error in set_errors(spec, splits):
            report.add("error", error.code, error.message, hint=error.hint)
    if isinstance(renderer, Renderer):  # an encoder has no mask to get wrong
        _masks(report, rendered, renderer)
    samples = [(example, sample) for example, sample in rendered["train"]]
    report.samples = [_shown(renderer.tokenizer, example, sample) for example, sample in _three(samples)]
    if config is not None:
        require_embeddings((sample for rows in rendered.values() for _, sample in rows), renderer.tokenizer, config)


Rendered = list[tuple[Example, Sample]]


def _render(report: Report, spec: Spec, splits: Splits, renderer: AnyRenderer, name: str) -> Rendered:
    rows = dict(splits.named())[name]
    done: Rendered = []
    long: list[Example] = []
    cut: list[RowRef] = []
    refused: dict[str, list[Example]] = {}
    for example in rows:
        try:
            sample = renderer.sample(example)
        except TooLong:
            long.append(example)
        except DataError as error:
            refused.setdefault(error.message, []).append(example)
        else:
            if sample.cut and spec.data.on_long != "cut":
                long.append(example)
            else:
                done.append((example, sample))
            if sample.cut:
                cut.append(at(name, example, cut=sample.cut))
    counts = report.counts[name]
    counts["truncated"], counts["too_long"] = len(cut), len(long)
    counts["tokens"] = _percentiles([len(sample.input_ids) for _, sample in done])
    counts["supervised_tokens"] = sum(sample.supervised for _, sample in done)
    for message, examples in refused.items():
        where = f"{splits.files[name]}: {rows_text([example.row for example in examples])}"
        refs = [at(name, example) for example in examples]
        report.add("error", "template", f"{where}: {message}", refs, "Change these rows, or take another model.")
    _lengths(report, spec, splits, name, long, cut)
    return done


def _lengths(
    report: Report, spec: Spec, splits: Splits, name: str, long: Sequence[Example], cut: Sequence[RowRef]
) -> None:
    """What `data.on_long` makes of rows that are too long."""
    most = f"{spec.data.max_length} tokens with room for an answer"
    if long and spec.data.on_long == "drop":
        message = f"{len(long)} rows of {name} are longer than {most}; dropped, as asked"
        report.add("note", "too_long", message, [at(name, example) for example in long])
        gone = {id(example) for example in long}
        splits.keep(name, [example for example in dict(splits.named())[name] if id(example) not in gone], "too_long")
    elif long:
        error = long_error(spec, splits.files[name], [example.row for example in long])
        report.add("error", error.code, error.message, [at(name, example) for example in long], error.hint)
    if cut and spec.data.on_long == "cut":
        message = f"{len(cut)} rows of {name} are cut to {most} (the middle of their text)"
        report.add("warning", "truncated", message, cut, "Raise data.max_length if what is lost matters.")


def _masks(report: Report, rendered: dict[str, Rendered], renderer: Renderer) -> None:
    """Rows with nothing to learn, without an end, with two BOS, or with tokens that do not belong there."""
    ends = set(renderer.end_ids)
    bos, unknown = renderer.tokenizer.bos_token_id, renderer.tokenizer.unk_token_id
    found: dict[str, list[RowRef]] = {kind: [] for kind in _SAYINGS}
    for name, rows in rendered.items():
        for example, sample in rows:
            taught = [label for label in sample.labels if label != IGNORED]
            kinds = {
                "fully_masked": all(label in ends for label in taught),
                "without_eos": not taught or sample.labels[-1] not in ends,
                "double_bos": bos is not None and sample.input_ids[:2] == [bos, bos],
                "control_tokens": bool(renderer.control_tokens(example)),
                "unknown_tokens": unknown not in ends and unknown in taught,
            }
            for kind, is_so in kinds.items():
                if is_so:
                    found[kind].append(at(name, example))
                    report.counts[name][kind] = report.counts[name].get(kind, 0) + 1
    train = rendered["train"]
    masked = sum(ref["split"] == "train" for ref in found["fully_masked"])
    if train and masked == len(train):
        refs = found.pop("fully_masked")
        report.add(
            "error",
            "all_masked",
            "every label is masked: no training row has a token to learn from",
            refs,
            "Look at the samples: the tokenizer makes nothing of the answers.",
        )
    for kind, refs in found.items():
        if refs:
            message, hint = _SAYINGS[kind]
            report.add("warning", kind, f"{len(refs)} rows {message}", refs, hint)


_SAYINGS = {
    "fully_masked": ("teach nothing but the end of the turn", "The tokenizer makes nothing of their answers."),
    "without_eos": ("do not end with an end of turn, so the model would not learn to stop", "Check the template."),
    "double_bos": ("begin with two BOS tokens", "Take the BOS out of the rows or of the chat template."),
    "control_tokens": (
        "hold a special token of the tokenizer in their own text, which the model takes for the template's",
        "Remove it from the text.",
    ),
    "unknown_tokens": ("have an answer with letters that the tokenizer does not know", "Take another base model."),
}


def _percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Of the rows' lengths in tokens, nearest rank."""
    ordered = sorted(lengths)
    if not ordered:
        return {}
    return {f"p{share}": ordered[max(0, -(-share * len(ordered) // 100) - 1)] for share in PERCENTILES}


def _three(rows: Rendered) -> Rendered:
    """The first row, one of middle length and the longest; fewer where they are the same."""
    if not rows:
        return []
    ordered = sorted(range(len(rows)), key=lambda index: len(rows[index][1].input_ids))
    chosen = dict.fromkeys([0, ordered[len(ordered) // 2], ordered[-1]])
    return [rows[index] for index in chosen]


def _shown(tokenizer: Any, example: Example, sample: Sample) -> dict[str, Any]:
    runs: list[tuple[bool, list[int]]] = []
    for token, label in zip(sample.input_ids, sample.labels, strict=True):
        supervised = label != IGNORED
        if not runs or runs[-1][0] != supervised:
            runs.append((supervised, []))
        runs[-1][1].append(token)
    segments = [{"text": tokenizer.decode(ids), "supervised": supervised} for supervised, ids in runs]
    shown = at("train", example, cut=sample.cut, tokens=len(sample.input_ids), segments=segments)
    return shown | {"input_ids": sample.input_ids, "labels": sample.labels}
