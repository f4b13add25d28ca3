"""Rows from jsonl, json, csv and parquet files and from the hub, with the file and the row in every error."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_image.data.problems import SHOWN, DataError
from training_image.hub import offline_if_out_of_reach

MAX_ROW_BYTES = 10_000_000
"""Longest row. No context of a language model holds more; a longer one is a file of another kind."""

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of one source."""

    name: str
    """The source as errors name it: ``train.jsonl``, ``hub:ORG/NAME:train``."""
    rows: list[Row]
    numbers: list[int]
    """Row in the file, from 1; the line in a jsonl file. Same length as ``rows``."""

    @property
    def columns(self) -> list[str]:
        """Every column that any row has, in order of appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))


def read_table(source: str, data_dir: Path) -> Table:
    """Read a source of the job file (``train.jsonl``, ``hub:ORG/NAME[:SPLIT]``); paths are relative to ``data_dir``.

    Raises DataError for what cannot be read, naming file and line or row.
    """
    if source.startswith("hub:"):
        return _hub(source)
    path = data_dir / source
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{source}: files {f'of the kind {path.suffix}' if path.suffix else 'without a suffix'} are not read",
            f"Use one of {', '.join(SUFFIXES)}.",
            "bad_file",
        )
    if not path.is_file():
        raise DataError(f"{source}: no such file in {data_dir}", "Correct the path under data.", "missing_file")
    if path.stat().st_size == 0:
        raise DataError(f"{source}: the file is empty", "Put at least one row into it.", "empty_file")
    table = reader(path, source)
    if not table.rows:
        raise DataError(f"{source}: the file holds no rows", "Put at least one row into it.", "empty_file")
    return table


def require_column(table: Table, column: str, role: str) -> None:
    """Raise DataError if no row has the column; the message lists the columns there and the nearest one."""
    columns = table.columns
    if column in columns:
        return
    near = difflib.get_close_matches(column, columns, n=1, cutoff=0.4)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    raise DataError(
        f"{table.name}: no column {column!r} for the role {role!r}; there are {', '.join(columns)}{nearest}",
        f"Name the column in the job file: data.columns: {{{role}: {near[0] if near else 'COLUMN'}}}",
        "missing_column",
    )


def _jsonl(path: Path, name: str) -> Table:
    rows: list[Row] = []
    numbers: list[int] = []
    broken: list[DataError] = []
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                raise _too_big(name, f"line {number}")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                rows.append(_object(_decode(line, name, number), name, number))
                numbers.append(number)
            except DataError as error:
                broken.append(error)
    if broken:
        more = [f"and {len(broken) - SHOWN} more lines"] if len(broken) > SHOWN else []
        messages = [error.message for error in broken[:SHOWN]] + more
        raise DataError("\n".join(messages), broken[0].hint, broken[0].code)
    return Table(name, rows, numbers)


def _object(line: str, name: str, number: int) -> Row:
    hint = 'Each line is one JSON object, for example {"text": "...", "label": "..."}.'
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{name}: line {number} is not valid JSON: {error}", hint, "broken_json") from None
    except RecursionError:
        raise DataError(f"{name}: line {number} is nested too deep", hint, "broken_json") from None
    if not isinstance(value, dict):
        raise DataError(f"{name}: line {number} is {_kind(value)}, not an object", hint, "broken_json")
    return value


def _json(path: Path, name: str) -> Table:
    text = _decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), name)
    hint = "A .json file is one list of objects; one object a line is a .jsonl file."
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}: line {error.lineno}, column {error.colno}: {error.msg}", hint, "broken_json"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not readable as JSON: {error}", hint, "broken_json") from None
    if not isinstance(value, list):
        raise DataError(f"{name}: holds {_kind(value)}, not a list", hint, "broken_json")
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict):
            raise DataError(f"{name}: row {number} is {_kind(row)}, not an object", hint, "broken_json")
    return _counted(name, value)


def _csv(path: Path, name: str) -> Table:
    text = _decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), name)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    columns: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not columns:
                columns = _header(cells, name)
            elif len(cells) != len(columns):
                raise DataError(
                    f"{name}: line {reader.line_num} has {len(cells)} cells, the header has {len(columns)}",
                    "Quote cells that hold the separator, a quote or a line break.",
                    "broken_csv",
                )
            else:
                rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        if "field larger" in str(error):
            raise _too_big(name, f"line {reader.line_num}") from None
        raise DataError(
            f"{name}: line {reader.line_num}: {error}", "Check the quotes of that line.", "broken_csv"
        ) from None
    return _counted(name, rows)


def _header(cells: list[str], name: str) -> list[str]:
    repeated = {cell for cell in cells if cells.count(cell) > 1}
    if repeated:
        raise DataError(
            f"{name}: the header names {sorted(repeated)[0]!r} more than once", "Rename a column.", "broken_csv"
        )
    return cells


def _parquet(path: Path, name: str) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{name}: parquet files need pyarrow", "pip install 'ftlaunch[local]'", "missing_extra"
        ) from None
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: not readable as parquet: {error}", "Write the file anew.", "bad_file") from None
    return _counted(name, rows)


def _hub(source: str) -> Table:
    identifier, _, split = source.removeprefix("hub:").partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", identifier):
        raise DataError(f"{source}: no set is named", "Write hub:ORG/NAME, or hub:ORG/NAME:SPLIT.", "hub")
    try:
        offline_if_out_of_reach()  # before the import, at which `datasets` looks whether it may ask
        import datasets
    except ImportError:
        raise DataError(
            f"{source}: data from the hub need the package datasets", "pip install 'ftlaunch[local]'", "missing_extra"
        ) from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        loaded = datasets.load_dataset(identifier, split=split or "train")
    except Exception as error:  # the hub client raises many kinds (network, access, parsing); all mean "not readable"
        raise DataError(
            f"{source}: could not be loaded from the hub: {type(error).__name__}: {str(error)[:300]}",
            "Check the name hub:ORG/NAME[:SPLIT] and the network; a private set needs HF_TOKEN. "
            "Or download it and name the file.",
            "hub",
        ) from error
    names = {
        column: feature.names for column, feature in loaded.features.items() if isinstance(feature, datasets.ClassLabel)
    }
    rows = [_named(row, names) for row in loaded]
    if not rows:
        raise DataError(f"{source}: holds no rows", "Name another split.", "empty_file")
    return _counted(source, rows)


def _named(row: Row, names: dict[str, list[str]]) -> Row:
    """Class numbers as the names that the set gives them (-1 stands for no label)."""
    named = dict(row)
    for column, known in names.items():
        number = row[column]
        named[column] = known[number] if number is not None and number >= 0 else None
    return named


def _counted(name: str, rows: list[Row]) -> Table:
    for number, row in enumerate(rows, 1):
        if _size(row.values()) > MAX_ROW_BYTES:
            raise _too_big(name, f"row {number}")
    return Table(name, rows, list(range(1, len(rows) + 1)))


def _size(values: Iterable[Any]) -> int:
    """Characters in all strings below (lower bound of the bytes)."""
    total = 0
    stack = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, str | bytes):
            total += len(value)
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return total


def _decode(raw: bytes, name: str, line: int | None = None) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        number = line or before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise DataError(
            f"{name}: line {number}, byte {column} is not UTF-8 (0x{raw[error.start]:02x})",
            "Convert the file: iconv -f LATIN1 -t UTF-8 OLD > NEW (or from the encoding that it has).",
            "bad_utf8",
        ) from None


def _too_big(name: str, place: str) -> DataError:
    return DataError(
        f"{name}: {place} is longer than {MAX_ROW_BYTES // 1_000_000} MB",
        "A row is one example: split it, or remove what is not text.",
        "huge_row",
    )


def _kind(value: Any) -> str:
    names = {str: "a string", list: "a list", dict: "an object", bool: "true or false", int: "a number"}
    return "null" if value is None else names.get(type(value), "a number")
