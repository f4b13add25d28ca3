"""What the commands share: options, errors, JSON, and how a job is named on the command line."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from backends import registry
from backends.interface import Backend, BackendError, Reason, State
from launcher import lifecycle
from launcher.store import Record, Store
from training_image.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

FAILED, WRONG_INPUT, REFUSED, INTERRUPTED = 1, 2, 3, 130
"""Exit codes, beside 0."""


def backend_option(command: F) -> F:
    """``--backend`` behind the sub-command; one before it (`click.Context.obj`) is overridden."""
    return click.option("--backend", metavar="NAME", help="Where the job runs, whatever the job file says.")(command)


def set_option(command: F) -> F:
    """``--set a.b=c``."""
    help_ = "Set a key of the job file, such as train.epochs=1. May be given often."
    return click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help=help_)(command)


def json_option(command: F) -> F:
    """``--json``."""
    help_ = "Print one JSON document on standard output, all else on standard error."
    return click.option("--json", "as_json", is_flag=True, help=help_)(command)


def chosen_backend(ctx: click.Context, backend: str | None) -> str | None:
    """The backend given behind the sub-command, else the one before it."""
    before: str | None = ctx.obj
    return backend or before


def say(text: str) -> None:
    """Print a line for people on standard error."""
    click.echo(text, err=True)


def show_json(document: object) -> None:
    """Print the one JSON document of a command."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def explained(error: Exception) -> int | None:
    """Tell of an error that is the user's or the place's; gives the exit code, None for a fault of ours."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        return 0
    if isinstance(error, InputError | BackendError):
        say(f"error: {error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        return WRONG_INPUT if isinstance(error, InputError) else REFUSED
    if isinstance(error, OSError | sqlite3.OperationalError):
        say(f"error: {error}")
        return WRONG_INPUT
    return None


@contextlib.contextmanager
def opened_store() -> Iterator[Store]:
    """The record of jobs, closed afterwards."""
    store = Store()
    try:
        yield store
    finally:
        store.close()


def find_record(store: Store, argument: str) -> Record:
    """The job that JOB means: a name, an unambiguous beginning of one, a results folder, or a job file (its newest).

    Raises InputError if there is none or there are several.
    """
    records = store.jobs()
    exact = [record for record in records if record.job == argument]
    begun = exact or [record for record in records if record.job.startswith(argument)]
    if len(begun) == 1:
        return begun[0]
    path = Path(argument).expanduser()
    if path.exists():
        wanted = {str(path.absolute()), str(path.absolute() / "ftlaunch.yaml"), os.path.realpath(path)}
        here = [record for record in records if record.job_file in wanted or record.output in wanted]
        if here:
            return here[0]
    if begun:
        several = "\n  ".join(f"{record.job}  {record.state}" for record in begun[:10])
        raise InputError(f"{argument!r} begins the names of {len(begun)} jobs:\n  {several}", hint="give one of them")
    raise InputError(f"there is no job {argument!r}", hint="`ftlaunch jobs` lists them")


def backend_of(record: Record) -> Backend:
    """The backend of a recorded job."""
    return registry.load(record.backend).create()


def local() -> Backend:
    """This machine."""
    return registry.load("local").create()


def asked(backend: Backend) -> contextlib.AbstractContextManager[None]:
    """Name the extra where an import of the backend's is missing."""
    return lifecycle.needing_extra(backend)


def code_of(record: Record) -> int:
    """The exit code that a followed job gives; wrong input is that, whether we saw it first or the job did."""
    if record.state is State.SUCCEEDED:
        return 0
    return WRONG_INPUT if record.reason is Reason.BAD_DATA else FAILED
