"""Says what is wrong with a job file: place, key, what was expected, what stands there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError

from launcher import yamlfile


def messages(
    error: ValidationError,
    model: type[BaseModel],
    prefix: yamlfile.Keys,
    document: yamlfile.Document,
    known: Sequence[str],
) -> Iterator[str]:
    """One line for each error of a model that stands below the keys ``prefix``; ``known`` are all keys there are."""
    for one in error.errors(include_url=False):
        location: yamlfile.Keys = one["loc"]
        keys_ = (*prefix, *location)
        dotted = ".".join(map(str, keys_))
        where = place(keys_, document)
        if one["type"] == "extra_forbidden":
            near = _nearest_key(location, model, prefix, known)
            yield f"{where}: unknown key {dotted}{near}"
        elif one["type"] == "missing":
            yield f"{where}: {dotted} is missing{_about(location, model)}"
        else:
            words = one["msg"].replace("Input should be", "must be").replace("Value error, ", "")
            words = words.replace("a valid dictionary or instance of", "keys and values of")
            words = words.replace("String should match pattern", "must match the pattern")
            quoting = "; put it in quotes" if one["type"] == "string_type" and one["input"] is not None else ""
            yield f"{where}: {dotted} {words}, not {_short(one['input'])}{quoting}"


def place(keys_: yamlfile.Keys, document: yamlfile.Document) -> str:
    """Where the value stands, or the nearest group around it."""
    while keys_ not in document.places:
        keys_ = keys_[:-1]
    return document.places[keys_]


def _short(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _model_at(location: yamlfile.Keys, model: type[BaseModel]) -> type[BaseModel] | None:
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def _about(location: yamlfile.Keys, model: type[BaseModel]) -> str:
    owner = _model_at(location[:-1], model)
    field = owner.model_fields.get(str(location[-1])) if owner else None
    text = field.description if field else None
    return f" ({text.rstrip('.')})" if text else ""


def nearest(name: str, known: Sequence[str] | frozenset[str]) -> str:
    """``; did you mean ...?`` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _nearest_key(location: yamlfile.Keys, model: type[BaseModel], prefix: yamlfile.Keys, known: Sequence[str]) -> str:
    """The nearest key of the same group, else a key of that name elsewhere."""
    name = str(location[-1])
    owner = _model_at(location[:-1], model)
    group = ".".join(map(str, location[:-1]))
    siblings = [f"{group}.{key}" if group else key for key in (owner.model_fields if owner else ())]
    near = difflib.get_close_matches(".".join(map(str, location)), siblings, n=1, cutoff=0.75)
    near = near or [dotted for dotted in known if dotted.rpartition(".")[2] == name]
    near = near or difflib.get_close_matches(name, [key for key in known if "." not in key], n=1)
    return f"; did you mean {'.'.join([*map(str, prefix), near[0]])!r}?" if near else ""


def line(message: str) -> tuple[str, int]:
    """Sort key of a message: its file, then its line."""
    where = re.match(r"(.*?):(\d+): ", message)
    return (where[1], int(where[2])) if where else ("", 0)
