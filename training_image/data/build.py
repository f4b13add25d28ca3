"""From a row as it stands in a file to an `Example`, by the task's type and ``data.columns``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from training_image.data.examples import Example, Message
from training_image.data.problems import DataError, Problem
from training_image.data.read import Row, Table, require_column
from training_image.spec import Spec

UNANSWERABLE = "unanswerable"
"""What the model has to say to a question whose list of answers is empty (SQuAD 2.0)."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "qa": ("question", "context", "answers"),
    "instruction": ("prompt", "completion"),
    "chat": ("messages",),
    "completion": ("text",),
}
"""Roles that each task needs; ``system`` and, for instruction, ``input`` may be there as well."""

SPEAKERS = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
"""Roles of a chat's turns, ShareGPT's names (``from``/``value``) too."""


class _BadRow(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Builder:
    """Makes examples of one job's rows.

    Unanswerable questions (an empty list of answers) are kept: their answer is `UNANSWERABLE`, and the instruction
    of every row says so where any row of the job is one.
    """

    def __init__(self, spec: Spec, labels: Sequence[str] = (), unanswerable: bool = False) -> None:
        self.columns = spec.data.columns
        self.type = spec.task.type
        self.labels = list(labels)
        self.fixed_labels = spec.task.labels is not None
        self.instruction = spec.task.instruction or self._default_instruction(unanswerable)
        if self.type == "completion" and spec.task.instruction:
            raise DataError(
                "task.instruction has no place in a plain completion task",
                "Leave it out, or use task.type: instruction.",
                "bad_task",
            )

    def _default_instruction(self, unanswerable: bool) -> str:
        if self.type == "classification":
            return f"Answer with one of: {', '.join(self.labels)}."
        if self.type == "qa":
            without = f" If the text does not say, answer: {UNANSWERABLE}." if unanswerable else ""
            return f"Answer the question with words of the text.{without}"
        return ""

    def require_columns(self, table: Table) -> None:
        """Raise DataError for a column that the job file names, or the task needs, and that no row has."""
        named = [role for role in self.columns if role not in REQUIRED[self.type]]
        for role in (*REQUIRED[self.type], *named):
            require_column(table, self.columns.get(role, role), role)

    def build(self, row: Row, number: int, split: str) -> Example | Problem:
        """The example that a row gives, or what is wrong with it."""
        makers = {
            "classification": self._classification,
            "qa": self._qa,
            "instruction": self._instruction,
            "chat": self._chat,
            "completion": self._completion,
        }
        try:
            messages, answers, text, cuttable = makers[self.type](row)
            identifier = self._id(row) or f"{split}-{number}"
        except _BadRow as bad:
            return Problem(bad.code, bad.message, split, number)
        return Example(identifier, number, messages, answers[0], answers, text, row, cuttable)

    def label(self, row: Row) -> str:
        """A row's label as text, stripped; numbers and booleans as JSON writes them. Raises _BadRow."""
        column = self.columns.get("label", "label")
        value = row.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise _BadRow("label_free", f"the row has no label (column {column!r})")
        if isinstance(value, bool | int):
            return json.dumps(value)
        return _valid(value, column).strip()

    def _classification(self, row: Row) -> _Parts:
        text = self._text(row, "text")
        label = self.label(row)
        if label not in self.labels:
            if self.fixed_labels:
                raise _BadRow("unknown_label", f"the label {label!r} is not one of task.labels")
            raise _BadRow("label_not_in_train", f"the label {label!r} does not stand in train")
        return self._turns(row, f"{self.instruction}\n\n{text}"), (label,), text, text

    def _qa(self, row: Row) -> _Parts:
        question, context = self._text(row, "question"), self._text(row, "context")
        answers = self.answers(row) or (UNANSWERABLE,)
        user = f"{self.instruction}\n\n{context}\n\nQuestion: {question}"
        return self._turns(row, user), answers, f"{question}\n{context}", context

    def answers(self, row: Row) -> tuple[str, ...]:
        """All right answers, first come first, without repeats; empty: unanswerable. Raises _BadRow.

        Takes a list of strings, SQuAD's ``{"text": [...]}``, one string, or either of the first two written as JSON
        (a csv cell).
        """
        column = self.columns.get("answers", "answers")
        value = row.get(column)
        if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
            value = _loads(value, column)
        if isinstance(value, dict):
            value = value.get("text")
        if value is None or value == "":
            raise _BadRow("label_free", f"the row has no answers (column {column!r}); an empty list says unanswerable")
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list):
            raise _BadRow("wrong_type", f"column {column!r} holds {_type(found)}, not a list of strings")
        texts = [_valid(item, column).strip() for item in found]
        if not all(texts):
            raise _BadRow("label_free", f"an answer is empty (column {column!r})")
        return tuple(dict.fromkeys(texts))

    def _instruction(self, row: Row) -> _Parts:
        prompt = self._text(row, "prompt")
        more = self._optional(row, "input")
        answer = self._text(row, "completion", "label_free")
        user = "\n\n".join(part for part in (self.instruction, prompt, more) if part)
        text = f"{prompt}\n\n{more}" if more else prompt
        return self._turns(row, user), (answer,), text, max(prompt, more, key=len)

    def _completion(self, row: Row) -> _Parts:
        text = self._text(row, "text")
        return (), (text,), text, ""

    def _chat(self, row: Row) -> _Parts:
        column = self.columns.get("messages", "messages")
        value = row.get(column)
        if isinstance(value, str):
            value = _loads(value, column)
        if value is None or value == []:
            raise _BadRow("empty", f"the chat is empty (column {column!r})")
        if not isinstance(value, list):
            raise _BadRow("wrong_type", f"column {column!r} holds {_type(value)}, not a list of messages")
        turns = [_turn(turn, column) for turn in value]
        if turns[-1]["role"] != "assistant":
            raise _BadRow("bad_chat", "the chat does not end with the assistant's turn")
        if not any(turn["role"] == "user" for turn in turns):
            raise _BadRow("bad_chat", "the chat has no user's turn")
        if any(turn["role"] == "system" for turn in turns[1:]):
            raise _BadRow("bad_chat", "a system turn stands after the first turn")
        if self.instruction and turns[0]["role"] != "system":
            turns.insert(0, Message(role="system", content=self.instruction))
        elif self.instruction:
            turns[0] = Message(role="system", content=f"{self.instruction}\n\n{turns[0]['content']}")
        text = "\n".join(turn["content"] for turn in turns[:-1] if turn["role"] != "system")
        return tuple(turns[:-1]), (turns[-1]["content"],), text, ""

    def _turns(self, row: Row, user: str) -> tuple[Message, ...]:
        system = self._optional(row, "system")
        first = (Message(role="system", content=system),) if system else ()
        return (*first, Message(role="user", content=user))

    def _text(self, row: Row, role: str, code: str = "empty") -> str:
        column = self.columns.get(role, role)
        value = row.get(column)
        if value is None or value == "":
            raise _BadRow(code, f"column {column!r} is empty")
        text = _valid(value, column)
        if not text.strip():
            raise _BadRow(code, f"column {column!r} is blank")
        return text

    def _optional(self, row: Row, role: str) -> str:
        column = self.columns.get(role, role)
        value = row.get(column)
        return _valid(value, column) if value is not None else ""

    def _id(self, row: Row) -> str:
        column = self.columns.get("id", "id")
        value = row.get(column)
        if value is None:
            return ""
        return str(value) if isinstance(value, int) else _valid(value, column)


_Parts = tuple[tuple[Message, ...], tuple[str, ...], str, str]
"""Messages, answers, text, cuttable."""


def _turn(turn: Any, column: str) -> Message:
    if not isinstance(turn, dict):
        raise _BadRow("wrong_type", f"a turn of {column!r} is {_type(turn)}, not {{role, content}}")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or role not in SPEAKERS:
        raise _BadRow("bad_chat", f"a turn of {column!r} has the role {role!r}")
    speaker = SPEAKERS[role]
    if content is None or (isinstance(content, str) and not content.strip()):
        raise _BadRow("label_free" if speaker == "assistant" else "empty", f"a turn of the {speaker} is empty")
    return Message(role=speaker, content=_valid(content, column))


def _valid(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise _BadRow("wrong_type", f"column {column!r} holds {_type(value)}, not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _BadRow("bad_text", f"column {column!r} holds half of a surrogate pair, which is no text") from None
    return value


def _loads(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _BadRow("wrong_type", f"column {column!r} holds text that is not JSON") from None


def _type(value: Any) -> str:
    names = {str: "text", list: "a list", dict: "an object", bool: "true or false"}
    return "nothing" if value is None else names.get(type(value), "a number")


def training_labels(spec: Spec, rows: Sequence[Row]) -> list[str]:
    """All labels of a classification job: ``task.labels``, else those of the training rows, sorted; else empty."""
    if spec.task.type != "classification":
        return []
    if spec.task.labels is not None:
        return list(spec.task.labels)
    builder = Builder(spec)
    labels: set[str] = set()
    for row in rows:
        try:
            labels.add(builder.label(row))
        except _BadRow:  # told of when the row itself is built
            continue
    return sorted(labels)


def any_unanswerable(spec: Spec, rows: Sequence[Row]) -> bool:
    """Whether any question has an empty list of answers."""
    if spec.task.type != "qa":
        return False
    builder = Builder(spec)
    for row in rows:
        try:
            if not builder.answers(row):
                return True
        except _BadRow:  # told of when the row itself is built
            continue
    return False
