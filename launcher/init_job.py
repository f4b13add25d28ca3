"""Looks at a data file and writes a job file for it: which task, which columns, which sibling files."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training_image.data.read import SUFFIXES, Table, read_table
from training_image.errors import InputError
from training_image.spec import DEFAULT_METRIC, TaskType

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Small enough for any machine; Apache-2.0."""

NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "content", "review", "document", "message", "body", "description", "title"),
    "label": ("label", "labels", "category", "class", "target", "sentiment", "intent", "topic", "kind"),
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph", "document"),
    "answers": ("answers", "answer"),
    "prompt": ("prompt", "instruction", "question", "query"),
    "completion": ("completion", "output", "response", "answer"),
    "input": ("input",),
    "system": ("system", "system_prompt"),
}
"""What the columns of a role are called, the usual name first."""

SIBLINGS = {"validation": ("validation", "valid", "val", "dev", "eval"), "test": ("test",)}
MOST_LABELS = 100
LABEL_SHARE = 0.2
"""A column is a label where it has at most so many values for its rows."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a table looks like."""

    task: TaskType
    columns: dict[str, str]
    """Column by role."""
    notes: dict[str, str] = field(default_factory=dict)
    """What to say of a role's column."""


def guess(table: Table) -> Guess:
    """The task and the columns of a table. Raises InputError where no column holds text."""
    for found in (_chat(table), _qa(table), _instruction(table), _classification(table)):
        if found is not None:
            return found
    text = _text_column(table, ())
    if text is None:
        raise InputError(
            f"{table.name}: no column holds text; there are {', '.join(table.columns)}",
            hint="Write the job file by hand; `ftlaunch schema` describes it.",
        )
    return Guess("completion", {"text": text})


def _named(table: Table, role: str) -> str | None:
    """The column with one of the role's names, whatever its case."""
    by_name = {column.lower(): column for column in reversed(table.columns)}
    return next((by_name[name] for name in NAMES[role] if name in by_name), None)


def _values(table: Table, column: str) -> list[Any]:
    return [row.get(column) for row in table.rows if row.get(column) is not None]


def _chat(table: Table) -> Guess | None:
    for column in table.columns:
        values = _values(table, column)
        if values and all(_is_chat(value) for value in values[:100]):
            return Guess("chat", {"messages": column})
    return None


def _is_chat(value: Any) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return False
    if not isinstance(value, list) or not value:
        return False
    shapes = ({"role", "content"}, {"from", "value"})
    return all(isinstance(turn, dict) and any(shape <= turn.keys() for shape in shapes) for turn in value)


def _qa(table: Table) -> Guess | None:
    columns = {role: _named(table, role) for role in ("question", "context", "answers")}
    found = {role: column for role, column in columns.items() if column is not None}
    return Guess("qa", found) if len(found) == 3 else None


def _instruction(table: Table) -> Guess | None:
    prompt, completion = _named(table, "prompt"), _named(table, "completion")
    if prompt is None or completion is None:
        return None
    columns = {"prompt": prompt, "completion": completion}
    for role in ("input", "system"):
        column = _named(table, role)
        if column is not None and any(_values(table, column)):
            columns[role] = column
    return Guess("instruction", columns)


def _classification(table: Table) -> Guess | None:
    named = _named(table, "label")
    candidates = [named] if named is not None else [column for column in table.columns if column.lower() != "id"]
    for label in candidates:
        values = _values(table, label)
        if not all(isinstance(value, str | int) for value in values):
            continue
        counts = Counter(map(str, values))
        few = 2 <= len(counts) <= min(MOST_LABELS, max(2.0, LABEL_SHARE * len(values)))
        text = _text_column(table, (label,))
        if text is not None and (few or (named is not None and len(counts) > 1)):
            shown = ", ".join(f"{value} {count}" for value, count in counts.most_common(8))
            more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
            note = f"{len(counts)} labels: {shown}{more}"
            return Guess("classification", {"text": text, "label": label}, {"label": re.sub(r"\s+", " ", note)})
    return None


def _text_column(table: Table, taken: Sequence[str]) -> str | None:
    """The column called as a text is, else the one with the longest texts; none that always says the same."""
    named = _named(table, "text")
    lengths = {
        column: sum(map(len, values)) / len(values)
        for column in table.columns
        if column not in taken
        and (values := _values(table, column))
        and all(isinstance(value, str) for value in values)
        and (len(set(values)) > 1 or len(values) == 1)
    }
    if named in lengths:
        return named
    return max(lengths, key=lambda column: lengths[column], default=None)


def find_files(source: str) -> dict[str, str]:
    """The sources of the splits that there are for DATA: a file with its siblings, a folder, or a hub id.

    Siblings are named as the training file is, with ``validation`` (valid, val, dev, eval) or ``test`` for ``train``.
    """
    if source.startswith("hub:"):
        return {"train": source}
    path = Path(source)
    if path.is_dir():
        found = [path / f"train{suffix}" for suffix in SUFFIXES if (path / f"train{suffix}").is_file()]
        if not found:
            raise InputError(f"the folder {path} holds no train.jsonl, .json, .csv or .parquet", hint="Name the file.")
        path = found[0]
    if not path.is_file():
        raise InputError(
            f"there is no file {path}", hint="DATA is a jsonl, json, csv or parquet file, or hub:ORG/NAME."
        )
    files = {"train": str(path)}
    if "train" in path.stem:
        for split, names in SIBLINGS.items():
            siblings = (path.with_name(path.stem.replace("train", name) + path.suffix) for name in names)
            sibling = next((sibling for sibling in siblings if sibling.is_file()), None)
            if sibling is not None:
                files[split] = str(sibling)
    return files


def job_file(files: dict[str, str], folder: Path, model: str) -> str:
    """The commented job file for sources found by `find_files`; paths are written relative to ``folder``.

    Raises InputError for a file that cannot be read or holds no text.
    """
    table = read_table(files["train"], Path())
    found = guess(table)
    lines = [
        "# A job: `ftlaunch check` looks at its rows, `ftlaunch` runs it, `ftlaunch schema` tells all keys.",
        "",
        "model:",
        _line("id", _model(model, folder), "the base model: a hub id (org/name) or a folder"),
        "",
        "data:",
        *_sources(files, folder, len(table.rows)),
        "  columns:  # ROLE: COLUMN",
        *(f"  {_line(role, column, found.notes.get(role, ''))}" for role, column in found.columns.items()),
        "  # group: COLUMN  # rows with the same value stay in one split",
        "  # max_length: 1024  # tokens; longer prompts are cut, answers never",
        "  # on_leak: drop_train  # instead of refusing a training row that stands in test too",
        "",
        "task:",
        _line("type", found.task, "classification, qa, instruction, chat or completion"),
        f"  # metric: {DEFAULT_METRIC[found.task]}  # what decides",
        *([] if found.task == "completion" else ["  # instruction: ...  # put before each input"]),
        "",
        "# train:",
        "#   epochs: 3  # passes over the training rows",
        "#   rank: 16  # of the LoRA adapter",
        "#   seed: 0",
        "",
        "# evaluate:",
        "#   enough: 0.92  # a baseline this good ends the job untuned; null: always tune",
        "#   slices: [COLUMN]  # metrics by the values of a column",
        "",
        "# backend: local  # where it runs (`ftlaunch backends`)",
    ]
    return "\n".join(lines) + "\n"


def _sources(files: dict[str, str], folder: Path, rows: int) -> list[str]:
    lines = [_line("train", _relative(files["train"], folder), f"{rows} rows")]
    lines += [_line(split, _relative(files[split], folder)) for split in SIBLINGS if split in files]
    missing = [split for split in SIBLINGS if split not in files]
    if missing:
        shares = {"validation": 0.15, "test": 0.2}
        lines.append("  split:  # shares taken off train, by hash")
        lines += [f"    {split}: {shares[split]}" for split in missing]
    return lines


def _model(model: str, folder: Path) -> str:
    return _relative(model, folder) if Path(model).is_dir() else model


def _relative(path: str, folder: Path) -> str:
    if path.startswith("hub:"):
        return path
    relative = os.path.relpath(path, folder)
    return relative if not relative.startswith(os.path.join("..", "..", "..")) else os.path.abspath(path)


def _line(key: str, value: str, comment: str = "") -> str:
    plain = re.fullmatch(r"[A-Za-z./][\w./-]*", value) and value.lower() not in _YAML_WORDS
    shown = value if plain else json.dumps(value, ensure_ascii=False)
    return f"  {key}: {shown}" + (f"  # {comment}" if comment else "")


_YAML_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n", ".nan", ".inf"}
