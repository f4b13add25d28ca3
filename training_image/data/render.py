"""Token ids of a row by the model's own chat template: prompt masked, answer and end of turn supervised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from training_image.data.examples import IGNORED, Example, Message, Sample
from training_image.data.problems import DataError
from training_image.data.template import ChatTemplate, Text
from training_image.spec import Spec

CUT = " … "
"""Stands where the middle of a text was cut out."""


class TooLong(DataError):
    """What may not be cut (the template, the instruction, the answer) is longer than ``data.max_length`` alone."""

    def __init__(self, fixed: int, limit: int) -> None:
        super().__init__(
            f"{fixed} tokens of it may not be cut (template, instruction, answer), data.max_length is {limit}",
            "Raise data.max_length, shorten the row, or set data.on_long: drop.",
            "too_long",
        )


class Renderer:
    """Makes token ids of examples for one tokenizer and job.

    What the rules are:

    * The template alone decides on special tokens (as in transformers' `apply_chat_template`); nothing adds a second
      BOS. A plain completion begins with BOS, or with EOS where the tokenizer has no BOS, which is not supervised.
    * Supervised are the answer and the token that ends the turn, and nothing behind it; in a chat every turn of the
      assistant. Masks go by position, so a padding token that is EOS does not matter.
    * The answer's ids are appended to the prompt's ids: what is trained is token for token what is asked later.
    * A prompt that is too long loses the middle of its text (the longest texts of the user first), never the
      instruction, the answer or the end of turn. Trained or asked it is cut alike: it leaves room for the longest
      label, or for ``task.max_new_tokens`` (at most a quarter of ``data.max_length``), and for its own answer where
      that is longer.
    """

    def __init__(self, tokenizer: Any, spec: Spec, labels: Sequence[str] = ()) -> None:
        """``labels`` (else ``task.labels``): all answers of a classification, so that each row leaves room for the
        longest one. Raises TemplateError for a template that cannot be trained on."""
        self.tokenizer = tokenizer
        self.max_length = spec.data.max_length
        self.classifies = spec.task.type == "classification"
        self._template = None if spec.task.type == "completion" else ChatTemplate(tokenizer)
        self._context = "" if self._template is None else self._template.text([_user("a")])
        self._answer = lru_cache(maxsize=4096)(self._encode_answer)
        known = (labels or spec.task.labels or ()) if self.classifies else ()
        self.room = max((len(self._answer(label)) for label in known), default=0)
        """Tokens that every prompt leaves for its answer."""
        self.generates = spec.task.type in ("qa", "instruction", "chat")
        if self.generates:
            self.room = min(spec.task.max_new_tokens, self.max_length // 4)

    @property
    def plain_template(self) -> str | None:
        """The template to save with the tokenizer where it has none of its own; else None."""
        return None if self._template is None else self._template.plain

    @property
    def end_ids(self) -> list[int]:
        """Tokens at which an answer ends: the end of turn, and the tokenizer's EOS."""
        ends = [self.answer("a")[-1], self.tokenizer.eos_token_id]
        return list(dict.fromkeys(token for token in ends if token is not None))

    def answer(self, text: str) -> list[int]:
        """Ids of an answer and its end of turn, as they stand after the generation prompt."""
        return list(self._answer(text))

    def prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        """Ids of the prompt with the generation prompt, cut so that it fits ``data.max_length`` with its answer.

        ``shots`` become earlier turns, each one's text cut as its own row would be. Where they do not fit, the
        farthest ones go first, for classification one of each label at a time; only then the example's text is cut.
        Raises TooLong.
        """
        limit = self._limit(example)
        fitted = [self._fitted(shot, self.max_length - len(self.answer(shot.answer))) for shot in shots]
        while fitted:
            ids = self._ids(example, fitted)
            if len(ids) <= limit:
                return ids
            fitted = _without_farthest(fitted, self.classifies)
        return self._ids(self._fitted(example, limit))

    def sample(self, example: Example) -> Sample:
        """The row as it is trained on, at most ``data.max_length`` tokens. Raises TooLong, TemplateError."""
        answer, limit = self.answer(example.answer), self._limit(example)
        whole = self._ids(example)
        fits = len(whole) <= limit
        fitted = example if fits else self._fitted(example, limit)
        ids = whole if fits else self._ids(fitted)
        labels = [IGNORED] * len(ids)
        if self._template is not None:
            text = self._template.prompt(fitted.messages)
            self._template.check_full_turn(fitted.messages, text.text, example.answer)
            self._supervise(text, ids, labels)
        return Sample(example.id, ids + answer, labels + answer, len(whole) - len(ids))

    def control_tokens(self, example: Example) -> list[str]:
        """Special tokens that a row's own text holds; the model would take them for the template's."""
        texts = [*(turn["content"] for turn in example.messages), example.answer]
        specials = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return [token for token in specials if any(token in text for text in texts)]

    def _limit(self, example: Example) -> int:
        return self.max_length - max(len(self.answer(example.answer)), self.room)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _encode_answer(self, text: str) -> tuple[int, ...]:
        if self._template is None:
            return (*self._encode(text), self._end_of_text())
        written = self._template.lead + self._template.shown(text) + self._template.end
        before = self._encode(self._context)
        together = self._encode(self._context + written)
        if together[: len(before)] == before:
            return tuple(together[len(before) :])
        # The answer's first letters would merge with the prompt's last token: encode behind a token that never merges.
        end = self.tokenizer.convert_ids_to_tokens(together[-1])
        return tuple(self._encode(end + written)[1:])

    def _end_of_text(self) -> int:
        end: int | None = self.tokenizer.eos_token_id
        if end is None:
            raise DataError("the tokenizer has no EOS token", "Take another base model.", "template")
        return end

    def _ids(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        if self._template is not None:
            return self._encode(self._template.text(_with_shots(example, shots)))
        bos = self.tokenizer.bos_token_id
        ids = [self._end_of_text() if bos is None else bos]
        for shot in shots:
            ids += self.answer(shot.answer)
        return ids

    def _supervise(self, text: Text, ids: list[int], labels: list[int]) -> None:
        """Unmask the assistant's earlier turns: the tokens that lie wholly inside their spans."""
        if not text.spans:
            return
        if not self.tokenizer.is_fast:
            raise DataError(
                "chats of several turns need a tokenizer that tells offsets (a fast one)",
                "Keep one answer a row, or take a model with tokenizer.json.",
                "template",
            )
        encoding = self.tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for index, (start, end) in enumerate(encoding["offset_mapping"]):
            if any(first <= start < end <= last for first, last in text.spans):
                labels[index] = ids[index]

    def _fitted(self, example: Example, limit: int) -> Example:
        """The example with texts cut so that its prompt has at most ``limit`` tokens. Raises TooLong."""

        def size(cap: int) -> int:
            return len(self._ids(_capped(example, cap)))

        longest = max(map(len, _texts(example)), default=0)
        whole = size(longest)
        if whole <= limit:
            return example
        if not longest or (least := size(1)) > limit:
            answer = self.max_length - limit
            raise TooLong((least if longest else whole) + answer, self.max_length)
        return _capped(example, _largest(size, limit, (1, least), (longest, whole)))


def _largest(size: Callable[[int], int], limit: int, low: tuple[int, int], high: tuple[int, int]) -> int:
    """The largest cap (nearly: at most 4 tokens are given away) whose ``size`` is within ``limit``, by interpolation.

    ``low`` fits and ``high`` does not: ``(cap, size)`` each.
    """
    while high[0] - low[0] > 1 and limit - low[1] > 4:
        share = (limit - low[1]) / max(high[1] - low[1], 1)
        middle = low[0] + math.floor(share * (high[0] - low[0]))
        # Halving when interpolation stands still keeps the worst case logarithmic.
        if not low[0] + (high[0] - low[0]) // 8 < middle < high[0]:
            middle = (low[0] + high[0]) // 2
        found = (middle, size(middle))
        low, high = (found, high) if found[1] <= limit else (low, found)
    return low[0]


def _texts(example: Example) -> list[str]:
    if example.cuttable:
        return [example.cuttable]
    return [turn["content"] for turn in example.messages if turn["role"] == "user"]


def _capped(example: Example, cap: int) -> Example:
    """The example with each text that may be cut at most ``cap`` characters long (and the mark of the cut)."""
    turns = list(example.messages)
    if example.cuttable:
        before, _, after = turns[-1]["content"].rpartition(example.cuttable)
        turns[-1] = _user(before + _cut(example.cuttable, cap) + after)
    else:
        turns = [_user(_cut(turn["content"], cap)) if turn["role"] == "user" else turn for turn in turns]
    return Example(
        example.id, example.row, tuple(turns), example.answer, example.references, example.text, example.fields
    )


def _cut(text: str, cap: int) -> str:
    if len(text) <= cap:
        return text
    head = (cap + 1) // 2
    return text[:head].rstrip() + CUT + text[len(text) - (cap - head) :].lstrip()


def _with_shots(example: Example, shots: Sequence[Example]) -> list[Message]:
    """The shots' turns, then the example's; one system turn, the example's, stays in front."""
    turns: list[Message] = []
    for shot in shots:
        turns += [*shot.messages, Message(role="assistant", content=shot.answer)]
    system = [turn for turn in example.messages if turn["role"] == "system"][:1]
    return [*system, *(turn for turn in (*turns, *example.messages) if turn["role"] != "system")]


def _without_farthest(shots: list[Example], by_label: bool) -> list[Example]:
    if not by_label:
        return shots[1:]
    first = {shot.answer: index for index, shot in reversed(list(enumerate(shots)))}
    return [shot for index, shot in enumerate(shots) if index not in first.values()]


def _user(content: str) -> Message:
    return Message(role="user", content=content)
