"""Reads a YAML file with the line of every key, by YAML 1.2's rules for plain values.

PyYAML follows YAML 1.1, where ``on`` and ``no`` are booleans, ``1e-4`` is text and ``1:30`` is ninety; labels and
learning rates would not arrive as they were written. Here only ``true`` and ``false`` are booleans and ``1e-4`` is a
number. Duplicate keys are errors.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training_image.errors import InputError

Keys = tuple[str | int, ...]
"""Keys and indices that lead to a value."""
MOST_VALUES = 20_000
"""More than this (aliases of aliases) is no job file."""

if yaml.__with_libyaml__:
    from yaml import CSafeLoader as _Loader
else:
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]


class _Yaml12(_Loader):
    """Composes nodes with the plain values of YAML 1.2's core schema."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own way to begin without YAML 1.1's


_STARTS = list("-+.0123456789")
_Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Yaml12.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Yaml12.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), _STARTS)
_Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    _STARTS,
)


@dataclass
class Document:
    """A YAML mapping, the place of each of its values, and what is wrong with it."""

    value: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, str] = field(default_factory=dict)
    """``file:line`` by the keys that lead to a value."""
    errors: list[str] = field(default_factory=list)
    """Duplicate keys and the like, each with its place."""


def read(path: Path) -> Document:
    """Read a file that holds one mapping. Raises InputError for what is no readable YAML, with line and column."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 text", hint=_of_data(path) or "save the file as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return parse(text, str(path))


def _of_data(name: str | Path) -> str:
    """The hint where a data file was given as a job; else empty."""
    is_data = Path(name).suffix in (".jsonl", ".json", ".csv", ".parquet")
    return f"ftlaunch init {name} writes a job file for a data file" if is_data else ""


def parse(text: str, name: str) -> Document:
    """As `read`, for text; ``name`` stands for the file in messages."""
    node = _compose(text, name)
    document = Document()
    if node is None:
        return document
    if not isinstance(node, yaml.MappingNode):
        problem = f"{name}:{node.start_mark.line + 1}: expected keys and values (`model:` ...) at the top"
        raise InputError(problem, hint=_of_data(name))
    document.value = _Converter(name, document).convert(node, ())
    return document


def value(text: str) -> Any:
    """Read one value as it may stand behind a key (``1e-4``, ``[a, b]``, ``true``)."""
    node = _compose(text, "value")
    return None if node is None else _Converter("value", Document()).convert(node, ())


def _compose(text: str, name: str) -> yaml.Node | None:
    loader = _Yaml12(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = error.problem or "not valid YAML"
        line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
        hint = f"the line is: {line.strip()}" if line.strip() else "something before this line was not closed"
        if line.lstrip(" ").startswith("\t"):
            hint = "indent with blanks, not with tabs"
        hint = _of_data(name) or hint
        raise InputError(f"{place}: {problem}", hint=hint) from error
    except yaml.YAMLError as error:
        raise InputError(f"{name}: {error}") from error
    finally:
        loader.dispose()
    return node


class _Converter:
    """Makes values of nodes and notes their places."""

    def __init__(self, name: str, document: Document) -> None:
        self.name = name
        self.document = document
        self.open: set[int] = set()

    def convert(self, node: yaml.Node, path: Keys) -> Any:
        self.document.places.setdefault(path, f"{self.name}:{node.start_mark.line + 1}")
        if len(self.document.places) > MOST_VALUES:
            raise InputError(f"{self.name}: more than {MOST_VALUES} values")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self.open:
            raise InputError(f"{self.name}:{node.start_mark.line + 1}: a value that contains itself")
        self.open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            made: Any = [self.convert(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            made = self._mapping(node, path)
        self.open.remove(id(node))
        return made

    def _mapping(self, node: yaml.Node, path: Keys) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = f"{self.name}:{key_node.start_mark.line + 1}"
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self.document.errors.append(f"{place}: a key must be a plain word")
            elif key in made:
                first = self.document.places[(*path, key)].rpartition(":")[2]
                dotted = ".".join(map(str, (*path, key)))
                self.document.errors.append(f"{place}: {dotted} stands here a second time (first on line {first})")
            else:
                self.document.places[(*path, key)] = place
                made[key] = self.convert(value_node, (*path, key))
        return made

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.rpartition(":")[2]
        text = str(node.value)
        if kind == "bool":
            return text.lower() == "true"
        if kind == "null":
            return None
        try:
            if kind == "int":
                return int(text, 0) if text.lower().startswith(("0o", "0x")) else int(text)
            if kind == "float":
                return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
        except ValueError as error:  # thousands of digits, or a word behind a tag !!int
            shown = text if len(text) <= 40 else text[:37] + "..."
            raise InputError(f"{self.name}:{node.start_mark.line + 1}: {shown} cannot be read as a number") from error
        return text


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would not read back as text."""


_Dumper.yaml_implicit_resolvers = {
    start: [*yaml.SafeDumper.yaml_implicit_resolvers.get(start, []), *_Yaml12.yaml_implicit_resolvers.get(start, [])]
    for start in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Yaml12.yaml_implicit_resolvers}
}


def _as_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """A text of several lines as it reads; PyYAML quotes one that YAML cannot give so."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if text.strip().count("\n") else None)


_Dumper.add_representer(str, _as_text)

_BREAKS = frozenset("\x85\u2028\u2029\ufeff")
"""PyYAML writes these as they are where Unicode is allowed, and reads them back as blanks."""


def dump(content: dict[str, Any]) -> str:
    """Write a mapping so that `read` and any other YAML reader give it back."""
    plain = not _BREAKS.intersection(json.dumps(content, ensure_ascii=False, default=str))
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=plain, width=110)
    return text
