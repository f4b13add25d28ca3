"""Validation of a request against botocore's service model, as the service does it: what boto3's client leaves
unchecked (patterns, lengths, ranges, enums) included."""

import functools

import botocore.session
import regex


@functools.cache
def model(service: str):
    return botocore.session.get_session().get_service_model(service)


def problems(service: str, operation: str, content: dict) -> list[str]:
    """What is wrong with the request; empty if nothing."""
    return list(_check(model(service).operation_model(operation).input_shape, content, ""))


def _check(shape, value, path):
    kinds = {"structure": dict, "map": dict, "list": list, "string": str, "boolean": bool}
    kind = kinds.get(shape.type_name)
    if kind is None:
        kind = (int, float) if shape.type_name in ("float", "double", "timestamp") else int
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{path or 'request'}: expected {shape.type_name}, got {value!r}"
        return
    yield from {"structure": _structure, "map": _map, "list": _list, "string": _string}.get(shape.type_name, _number)(
        shape, value, path
    )


def _structure(shape, value, path):
    for name in shape.required_members:
        if name not in value:
            yield f"{path}.{name}: required"
    for name, each in value.items():
        if name not in shape.members:
            yield f"{path}.{name}: unknown"
        else:
            yield from _check(shape.members[name], each, f"{path}.{name}")


def _map(shape, value, path):
    yield from _length(shape, len(value), path)
    for name, each in value.items():
        yield from _check(shape.key, name, f"{path}[{name!r}]")
        yield from _check(shape.value, each, f"{path}[{name!r}]")


def _list(shape, value, path):
    yield from _length(shape, len(value), path)
    for number, each in enumerate(value):
        yield from _check(shape.member, each, f"{path}[{number}]")


def _string(shape, value, path):
    yield from _length(shape, len(value), path)
    pattern = shape.metadata.get("pattern")
    # The model's patterns are Java's; `regex` has the same properties (\p{L}, \p{Alnum}), `re` has not.
    if pattern and not regex.fullmatch(pattern, value):
        yield f"{path}: {value!r} does not match {pattern}"
    if shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is not one of the model's {len(shape.enum)} values"


def _number(shape, value, path):
    if not isinstance(value, bool):
        yield from _length(shape, value, path)


def _length(shape, size, path):
    if size < shape.metadata.get("min", size):
        yield f"{path}: {size} is below {shape.metadata['min']}"
    if size > shape.metadata.get("max", size):
        yield f"{path}: {size} is above {shape.metadata['max']}"
