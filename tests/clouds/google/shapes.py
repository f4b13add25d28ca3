"""Validation of a request with Google's own message types: unknown fields and enum values are refused, required ones
demanded. proto-plus drops the fields' behaviour, but their docstrings begin with it ("Required.", "Output only.")."""

import functools
import inspect
import json
import re

from tests.clouds.google.answers import Refused

ATTRIBUTE = re.compile(r"^ {4}(\w+) \([^\n]*\):\n {8}(\w+)", re.MULTILINE)


def parsed(kind, body: bytes):
    """The message in a request. Raises `Refused` for whatever the service's own parser and rules refuse."""
    try:
        message = kind.from_json(body, ignore_unknown_fields=False)
    except Exception as error:  # whatever protobuf's parser raises
        raise Refused(400, "INVALID_ARGUMENT", f"Invalid JSON payload received. {error}") from error
    problems = list(_problems(message, kind.__name__))
    if problems:
        raise Refused(400, "INVALID_ARGUMENT", "; ".join(problems))
    return message


@functools.cache
def behaviour(kind) -> dict[str, str]:
    """The first word of each field's docstring."""
    return dict(ATTRIBUTE.findall(inspect.cleandoc(kind.__doc__)))


def _problems(message, path):
    kind = type(message)
    for name, field in kind.meta.fields.items():
        value = getattr(message, name)
        there = kind.pb(message).HasField(name) if _has_presence(kind, name) else bool(value)
        told = behaviour(kind).get(name, "")
        if told == "Required" and not there:
            yield f"Required field is not set: {path}.{name}"
        if told == "Output" and there:
            yield f"{path}.{name} is set by the service only"
        if there and field.message is not None and hasattr(field.message, "meta"):
            for number, each in enumerate(value if field.repeated else [value]):
                if hasattr(type(each), "meta"):
                    yield from _problems(each, f"{path}.{name}[{number}]" if field.repeated else f"{path}.{name}")


def _has_presence(kind, name):
    return kind.pb().DESCRIPTOR.fields_by_name[name].has_presence


def as_json(message) -> dict:
    """As the service answers: unset fields are left out."""
    return json.loads(type(message).to_json(message, always_print_fields_with_no_presence=False))
