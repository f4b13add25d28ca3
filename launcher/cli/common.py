"""What the commands share: options, errors, JSON, and how a job is named on the command line."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from backends import registry
from backends.interface import Backend, BackendError, Reason, State
from launcher import lifecycle
from launcher.cli import complete
from launcher.store import Record, Store
from training_image.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

FAILED, WRONG_INPUT, REFUSED, INTERRUPTED = 1, 2, 3, 130
"""Exit codes, beside 0."""
WIDE = 3000
"""Columns where nobody's terminal sets them."""


def job_file_argument(command: F) -> F:
    """``JOB`` where a job file is meant, or a folder that holds one; the folder we are in unless given."""
    return click.argument("job", required=False, shell_complete=complete.paths)(command)


def job_argument(command: F) -> F:
    """``JOB`` where a recorded job is meant."""
    return click.argument("job", shell_complete=complete.jobs)(command)


def backend_option(command: F) -> F:
    """``--backend`` behind the sub-command; one before it (`click.Context.obj`) is overridden."""
    help_ = "Where the job runs, whatever the job file says."
    return click.option("--backend", metavar="NAME", shell_complete=complete.backends, help=help_)(command)


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


def print_table(table: Table, spare: Sequence[str], where: str = "--json has all") -> None:
    """Print a table; where nobody's terminal sets a width no line of it is broken.

    A narrow terminal is not shown the columns of ``spare``, the first of them first; ``where`` they stand is said.
    """

    def without(left_out: Sequence[str]) -> list[Table]:
        made = copy.copy(table)
        made.columns = [column for column in table.columns if column.header not in left_out]
        return [made]

    print_fitting(wide_console(), without, spare, where)


def wide_console() -> Console:
    """Standard output, as wide as its terminal; where there is none, wide enough for any table."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def print_fitting(
    console: Console, make: Callable[[Sequence[str]], Sequence[Table]], spare: Sequence[str], where: str
) -> None:
    """Print the tables that ``make`` gives without the columns named to it: as few of ``spare``, from its first on, as
    the console is too narrow for. What was left out is said, and ``where`` it stands.
    """
    left_out, tables = 0, make(())
    unbounded = console.options.update(max_width=10 * WIDE)
    while left_out < len(spare) and any(console.measure(t, options=unbounded).maximum > console.width for t in tables):
        left_out += 1
        tables = make(spare[:left_out])
    for table in tables:
        if table.title:
            console.print()
        console.print(table)
    if left_out:
        told = f"Left out, as the terminal is narrow: {', '.join(spare[:left_out])}; {where}."
        console.print(told, style="dim", markup=False)


def show_json(document: object) -> None:
    """Print the one JSON document of a command."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def explained(error: Exception) -> int | None:
    """Tell of an error that is the user's or the place's; gives the exit code, None for a fault of ours."""
    if isinstance(error, InputError | BackendError):
        say(f"error: {error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        return WRONG_INPUT if isinstance(error, InputError) else REFUSED
    if isinstance(error, OSError | sqlite3.OperationalError):
        told = str(error)
        if isinstance(error, OSError) and error.strerror and error.filename:
            told = f"{error.filename}: {error.strerror}"
        say(f"error: {told}")
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


def find_results(store: Store, argument: str) -> tuple[Path, Record | None]:
    """The results folder that JOB means, and the job's record; a folder that another machine fetched has none.

    Raises InputError where there is no such job or its results are not here.
    """
    folder = Path(argument).expanduser()
    try:
        record = find_record(store, argument)
    except InputError:
        if (folder / "result.json").is_file():
            return folder.absolute(), None
        raise
    if record.output is None or not Path(record.output).is_dir():
        raise InputError(f"the results of {record.job} are not here", hint=f"ftlaunch fetch {record.job}")
    return Path(record.output), record


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
