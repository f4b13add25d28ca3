"""How many tokens a job has: counted by the model's tokenizer where that is here, else told from the characters.

Nothing of torch or transformers is imported; `tokenizers` alone reads tokenizer.json. What was counted is kept by the
content of the data and the tokenizer, so that a second look costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.home import data_home
from launcher.cost import shapes
from launcher.job import JobFile
from training_image.data.build import Builder, any_unanswerable, training_labels
from training_image.data.examples import Example
from training_image.data.problems import Problem
from training_image.data.read import read_table
from training_image.errors import InputError

SCHEMA = 1
"""Of the kept counts."""
TURN = 5
"""Tokens that a chat template puts around a turn where the template cannot be asked (ChatML: 4 and a line's end)."""
BYTES_PER_TOKEN = ((100_000, 4.2), (40_000, 3.8), (0, 3.4))
"""UTF-8 bytes a token by least size of the vocabulary: English prose, rules of thumb, good to about a quarter."""
CHARACTER_SPREAD = 0.22
"""Standard deviation of the logarithm of a count from characters."""

Lengths = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of one split."""

    rows: int
    tokens: int
    """Of all rows, each cut to ``data.max_length``."""
    answers: int
    """Of them, those of the answers."""
    longest: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The tokens of a job's rows."""

    splits: dict[str, Split]
    shared: int
    """Tokens that all rows begin with."""
    labels: int
    """Number of labels; 0: no classification."""
    label_tokens: int
    """Of all labels together."""
    exact: bool
    """Whether a tokenizer counted."""
    method: str
    """How it was counted, in words."""

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of the counts."""
        return 0.02 if self.exact else CHARACTER_SPREAD


def count(file: JobFile, shape: shapes.Shape) -> Counts:
    """Count a job's rows. Raises InputError for data that is not here or cannot be read."""
    for name in (file.job.data.train, file.job.data.validation, file.job.data.test):
        if name and name.startswith("hub:"):
            raise InputError(f"the rows of {name} are not here to be counted", hint="download them into a file first")
    tokenizer = tokenizer_file(file)
    key = _key(file, tokenizer, shape)
    path = data_home() / "counts" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Counts(**{**kept, "splits": {name: Split(**each) for name, each in kept["splits"].items()}})
    made = _count(file, shape, tokenizer)
    with contextlib.suppress(OSError):  # only a saving of time
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(made)), encoding="utf-8")
    return made


def tokenizer_file(file: JobFile) -> Path | None:
    """The model's tokenizer.json: in its folder here, or in the hub's cache."""
    folders = [file.model_folder] if file.model_folder else shapes.snapshots(file.job.model.id)
    return next((path for folder in folders if (path := folder / "tokenizer.json").is_file()), None)


def _key(file: JobFile, tokenizer: Path | None, shape: shapes.Shape) -> str:
    parts: dict[str, Any] = {"schema": SCHEMA, "vocabulary": shape.vocabulary}
    parts["data"] = file.job.data.model_dump(mode="json")
    parts["task"] = file.job.task.model_dump(mode="json")
    paths = file.data_files() | ({"tokenizer": tokenizer} if tokenizer and _tokenizers() else {})
    try:
        for name, path in paths.items():
            with path.open("rb") as content:
                parts[f"file {name}"] = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _count(file: JobFile, shape: shapes.Shape, tokenizer: Path | None) -> Counts:
    examples, labels = _examples(file)
    lengths, exact, method = _lengths(tokenizer, shape)
    around = _around(tokenizer, examples["train"], lengths)
    most = file.job.data.max_length
    splits: dict[str, Split] = {}
    for name, rows in examples.items():
        prompts = lengths(["\n".join(turn["content"] for turn in row.messages) for row in rows])
        answers = lengths([row.answer for row in rows])
        turns = [around * max(1, len(row.messages)) if row.messages else 1 for row in rows]
        whole = [min(most, sum(each)) for each in zip(prompts, answers, turns, strict=True)]
        splits[name] = Split(len(rows), sum(whole), sum(answers), max(whole, default=0))
    begun = _common([_beginning(row) for row in examples["train"]])
    shared = lengths([begun])[0] + around // 2 if begun.strip() and examples["train"][0].messages else 0
    return Counts(splits, shared, len(labels), sum(lengths(labels)), exact, method)


def _examples(file: JobFile) -> tuple[dict[str, list[Example]], list[str]]:
    """The rows by split, and the labels. Shares that are split off are taken from the front: only sizes matter."""
    spec = _spec(file)
    names = {"train": spec.data.train, "validation": spec.data.validation, "test": spec.data.test}
    tables = {name: read_table(source, Path.cwd()) for name, source in names.items() if source is not None}
    every = [row for table in tables.values() for row in table.rows]
    labels = training_labels(spec, tables["train"].rows)
    builder = Builder(spec, labels, any_unanswerable(spec, every))
    found: dict[str, list[Example]] = {}
    for name, table in tables.items():
        builder.require_columns(table)
        made = (builder.build(row, number, name) for row, number in zip(table.rows, table.numbers, strict=True))
        found[name] = [each for each in made if not isinstance(each, Problem)]
    if not found["train"]:
        raise InputError("no training row can be used", hint=f"ftlaunch check {file.path}")
    rows = found["train"]
    for name, share in (("validation", spec.data.split.validation), ("test", spec.data.split.test)):
        if name not in found:
            size = round(share * len(found["train"]))
            found[name], rows = rows[:size], rows[size:]
    limit = spec.data.max_rows
    return {name: each[:limit] for name, each in (found | {"train": rows}).items()}, labels


def _spec(file: JobFile) -> Any:
    from launcher import submission

    return submission.with_own_paths(file)


def _beginning(row: Example) -> str:
    return "\n".join(turn["content"] for turn in row.messages) or row.answer


def _common(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    low, high = min(texts), max(texts)
    differ = (place for place, (one, two) in enumerate(zip(low, high, strict=False)) if one != two)
    return low[: next(differ, len(low))]


def _lengths(path: Path | None, shape: shapes.Shape) -> tuple[Lengths, bool, str]:
    """A function that counts tokens, whether it is exact, and how it counts."""
    tokenizers = _tokenizers() if path else None
    if path and tokenizers:
        with contextlib.suppress(Exception):  # tokenizers raises a plain Exception for a file of another version
            made = tokenizers.Tokenizer.from_file(str(path))
            made.no_truncation()
            made.no_padding()

            def counted(texts: Sequence[str]) -> list[int]:
                return [len(each) for each in made.encode_batch_fast(list(texts), add_special_tokens=False)]

            return counted, True, "tokens counted by the model's tokenizer"
    factor = next(each for least, each in BYTES_PER_TOKEN if shape.vocabulary >= least)
    method = f"tokens told from the text: {factor} bytes each (the tokenizer is not here)"
    return (lambda texts: [round(len(text.encode()) / factor) for text in texts]), False, method


def _tokenizers() -> Any:
    try:
        import tokenizers  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return tokenizers


def _around(path: Path | None, rows: Iterable[Example], lengths: Lengths) -> int:
    """Tokens that the chat template adds to each of the prompt's turns, asked of the template by the first row."""
    first = next(iter(rows), None)
    if first is None or not first.messages or path is None:
        return 2 * TURN
    rendered = _rendered(path.parent, first)
    if rendered is None:
        return 2 * TURN
    bare = "".join(turn["content"] for turn in first.messages) + first.answer
    return max(1, (lengths([rendered])[0] - lengths([bare])[0]) // len(first.messages))


def _rendered(folder: Path, row: Example) -> str | None:
    """A row by the model's own template; None where there is none or it cannot be run here."""
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None
    with contextlib.suppress(Exception):  # a template may raise anything, and only a few tokens hang on it
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        beside = folder / "chat_template.jinja"
        text = beside.read_text(encoding="utf-8") if beside.is_file() else config["chat_template"]
        template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text)
        turns = [*row.messages, {"role": "assistant", "content": row.answer}]
        tokens = {key: config[key] for key in ("bos_token", "eos_token") if isinstance(config.get(key), str)}
        return str(template.render(messages=turns, add_generation_prompt=False, **tokens))
    return None
