"""What would make the service refuse the request, or the job fail at once, seen before any container starts."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from launcher.rehearsal.layout import Layout, within
from training_image.contracts import CHECKPOINTS, DATA, OUTPUT
from training_image.errors import InputError
from training_image.platform import Platform, detect

_SETTING = re.compile(r"(FTLAUNCH_\w+)=(.*)", re.DOTALL)
_FLAGS = ("spec", "data", "output", "checkpoints", "deadline")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    level: Literal["ok", "note", "warning", "error"]
    code: str
    message: str
    hint: str = ""
    """What to do; always given for an error."""


def checks(layout: Layout, job_name: str) -> list[Check]:
    """The service's limits, and whether the job looks for its folders where the service has them."""
    faults = [*_limits(layout, job_name), *_folders(layout)]
    if faults:
        return faults
    return [Check("ok", "request", f"{layout.contract.service} would take the request: names, limits, folders")]


def _error(code: str, message: str, hint: str) -> Check:
    return Check("error", code, message, hint)


def _limits(layout: Layout, job_name: str) -> Iterator[Check]:
    contract, request = layout.contract, layout.request
    if contract.name_pattern and not re.fullmatch(contract.name_pattern, job_name):
        yield _error("name", f"{contract.service} takes no job of the name {job_name}", "give the job another name")
    yield from _many("hyperparameters", request.hyperparameters, contract.max_hyperparameters)
    yield from _long("hyperparameter", request.hyperparameters, contract.max_hyperparameter_length)
    yield from _many("environment", request.environment, contract.max_environment)
    yield from _long("environment", request.environment, contract.max_environment_length)
    for text in layout.unknown_folders():
        known = ", ".join(mount.name for mount in request.mounts)
        yield _error("placeholder", f"{text} is no input or output of the request", f"it has these: {known}")


def _many(code: str, given: dict[str, str], limit: int | None) -> Iterator[Check]:
    if limit is not None and len(given) > limit:
        yield _error(code, f"{len(given)} {code} are given, {limit} are taken", "leave some out, or put them in a file")


def _long(code: str, given: dict[str, str], limit: int | None) -> Iterator[Check]:
    for name, value in given.items():
        if limit is not None and len(value) > limit:
            message = f"the value of {name} has {len(value)} characters, {limit} are taken"
            yield _error(code, message, "shorten it (a name, a secret's name), or put it in a file of the data")


def _folders(layout: Layout) -> Iterator[Check]:
    """Only where the command can be read; else the run itself tells."""
    try:
        platform = _expected(layout)
    except InputError as error:
        yield _error("path", error.message, error.hint)
        return
    if platform is None:
        return
    yield from _found(layout, "data", str(platform.data), layout.paths(DATA))
    if str(platform.spec) != layout.spec:
        yield _error("path", f"the job reads {platform.spec}, but {layout.spec} is there", "correct FTLAUNCH_SPEC")
    output = platform.mirror if layout.contract.scratch and platform.mirror else platform.output
    yield from _written(layout, OUTPUT, str(output))
    yield from _written(layout, CHECKPOINTS, str(platform.checkpoints))


def _expected(layout: Layout) -> Platform | None:
    """Where the entry point will look, by the same rules that it goes by; None where that cannot be told."""
    words = [*(layout.entrypoint or ()), *layout.arguments]
    if layout.contract.line_shell:
        try:
            words = shlex.split(layout.arguments[0])
        except ValueError:
            return None
    if layout.entrypoint is not None and not any(word.partition(".")[0] == "training_image" for word in words):
        return None
    settings = {match[1]: match[2] for word in words if (match := _SETTING.fullmatch(word))}
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in _FLAGS:
        parser.add_argument(f"--{name}")
    flags = vars(parser.parse_known_args(words)[0])
    if any("$" in text for text in [*settings.values(), *(value for value in flags.values() if value)]):
        return None
    return detect(flags, layout.environment | settings)


def _found(layout: Layout, name: str, path: str, there: list[str]) -> Iterator[Check]:
    if path not in there:
        message = f"the job looks for its {name} in {path}, but {layout.contract.service} has it in {', '.join(there)}"
        yield _error("path", message, f"correct --{name} or FTLAUNCH_{name.upper()}")


def _written(layout: Layout, name: str, path: str) -> Iterator[Check]:
    contract, volume = layout.contract, layout.volume(path)
    places = ", ".join(layout.paths(OUTPUT, CHECKPOINTS))
    hint = f"write it into one of these: {places}"
    if volume is not None and volume.read_only:
        yield _error("unwritable", f"the {name} goes to {path}, which cannot be written: it is an input", hint)
    elif volume is None and contract.closed and within(path, contract.closed):
        yield _error("unwritable", f"the {name} goes to {path}, which is not there and cannot be made", hint)
    elif name == OUTPUT and not any(within(path, place) for place in layout.paths(OUTPUT)):
        yield _error("path", f"the {name} goes to {path}, which is no folder that is brought back", hint)
    elif name == CHECKPOINTS and CHECKPOINTS in contract.kept and (volume is None or not volume.kept):
        yield _error("path", f"the {name} go to {path}, which an interruption would lose", hint)
