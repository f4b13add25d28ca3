"""Requests held against azure-ai-ml's own models of the wire: unknown keys, wrong enums, missing and read-only ones."""

import enum
import typing

from azure.ai.ml._restclient.arm_ml_service import models

from tests.clouds.azure.answers import Refused


def require(name: str, content: dict) -> None:
    """Raise Refused for content that is not of the model of that name."""
    if wrong := problems(name, content):
        raise Refused(400, "ValidationError", "; ".join(wrong))


def problems(name: str, content: dict) -> list[str]:
    """What is wrong with the content of a request, by the model of that name."""
    kind = getattr(models, name)
    return list(_model(kind._deserialize(content, []), content, name))


def _model(instance, raw, path):
    if not isinstance(raw, dict):
        yield f"{path}: no object"
        return
    hints = typing.get_type_hints(type(instance), {**vars(models), "_models": models, "_types": models})
    fields = {field._rest_name: (attribute, field) for attribute, field in type(instance)._attr_to_rest_field.items()}
    for key in raw.keys() - fields.keys():
        yield f"{path}.{key}: not in the model {type(instance).__name__}"
    for key, (attribute, field) in fields.items():
        hint, value = hints.get(attribute), raw.get(key)
        if value is None:
            if type(None) not in typing.get_args(hint) and not _read_only(field):
                yield f"{path}.{key}: required"
        elif _read_only(field):
            yield f"{path}.{key}: read-only"
        else:
            yield from _value(hint, getattr(instance, attribute), value, f"{path}.{key}")


def _read_only(field) -> bool:
    return field._visibility == ["read"]


def _value(hint, parsed, raw, path):
    if hasattr(type(parsed), "_attr_to_rest_field"):
        yield from _model(parsed, raw, path)
    elif isinstance(raw, dict):
        for key, each in raw.items():
            yield from _value(None, parsed[key] if isinstance(parsed, dict) else None, each, f"{path}.{key}")
    elif enums := [each for each in typing.get_args(hint) if isinstance(each, type) and issubclass(each, enum.Enum)]:
        if not any(raw == member.value for each in enums for member in each):
            yield f"{path}: {raw!r} is not one of {enums[0].__name__}"
    elif str in (hint, *typing.get_args(hint)) and not isinstance(raw, str):
        yield f"{path}: {raw!r} is no text"
