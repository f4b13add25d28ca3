"""Rows against what can be run: ``data.max_length``, by what ``data.on_long`` asks for, and the model's vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from training_image.data.examples import Example, Sample
from training_image.data.load import Splits, set_errors
from training_image.data.problems import DataError, rows_text
from training_image.data.render import TooLong
from training_image.data.renderers import AnyRenderer
from training_image.spec import Spec

_NAMED = 3
"""How many tokens without an embedding a message names."""


def render_splits(spec: Spec, splits: Splits, renderer: AnyRenderer) -> dict[str, list[Sample]]:
    """Render all rows, split by split, in the order of `Splits`, which loses the rows that ``on_long: drop`` drops.

    Raises DataError for rows that are too long under ``on_long: refuse``, that cannot be cut to fit under ``cut``, or
    that the chat template refuses; it names the rows.
    """
    rendered = {}
    for name, rows in splits.named():
        kept: list[Example] = []
        samples: list[Sample] = []
        long: list[int] = []
        for example in rows:
            sample = _sample(renderer, example, splits.files[name])
            if sample is None or (sample.cut and spec.data.on_long != "cut"):
                long.append(example.row)
            else:
                kept.append(example)
                samples.append(sample)
        if long and spec.data.on_long != "drop":
            raise long_error(spec, splits.files[name], long)
        splits.keep(name, kept, "too_long")
        rendered[name] = samples
    if any("too_long" in counts["dropped"] for counts in splits.counts.values()):
        for error in set_errors(spec, splits):
            raise error
    return rendered


def long_error(spec: Spec, file: str, rows: list[int]) -> DataError:
    """The refusal of rows that are too long."""
    what = "cannot be cut to" if spec.data.on_long == "cut" else "are longer than"
    return DataError(
        f"{file}: {rows_text(rows)} {what} data.max_length {spec.data.max_length} tokens with room for an answer",
        "Raise data.max_length, shorten these rows, or set data.on_long: drop (they are counted).",
        "too_long",
    )


def require_embeddings(samples: Iterable[Sample], tokenizer: Any, config: Any) -> None:
    """Raise DataError for tokens that stand in rows and have no embedding: added to the tokenizer, not to the model.

    Tokens that no row holds do not matter; some published tokenizers have a few more than their model.
    """
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    if vocabulary is None:
        return
    found = sorted({token for sample in samples for token in sample.input_ids if token >= vocabulary})
    if not found:
        return
    names = ", ".join(f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise DataError(
        f"the rows hold tokens that the model has no embedding for: {names}{more}; it has {vocabulary}",
        "Take the tokenizer that belongs to the model, or resize the model's embeddings (transformers' "
        "resize_token_embeddings), save both and give that folder as model.id; no vocabulary is resized here.",
        "vocabulary",
    )


def _sample(renderer: AnyRenderer, example: Example, file: str) -> Sample | None:
    try:
        return renderer.sample(example)
    except TooLong:
        return None
    except DataError as error:
        raise DataError(f"{file}: row {example.row}: {error.message}", error.hint, error.code) from None
