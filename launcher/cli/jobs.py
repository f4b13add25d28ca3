"""``ftlaunch jobs``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from backends import registry
from backends.interface import Backend, BackendError, Handle, State
from launcher.cli import common
from launcher.store import Record, Store
from launcher.watch import refresh
from training_image.errors import InputError

STYLES = {State.SUCCEEDED: "green", State.FAILED: "red", State.CANCELLED: "yellow"}
WIDE = 300
"""Columns where nobody's terminal sets them: one line a job."""


@click.command(epilog="Example: `ftlaunch jobs --reconcile`, after a crash or on a new machine.")
@click.option("--reconcile", is_flag=True, help="Ask every place for its jobs, recorded or lost.")
@common.json_option
def command(reconcile: bool, as_json: bool) -> None:
    """List all jobs, newest first, as they were last seen."""
    with common.opened_store() as store:
        if reconcile:
            for name, found in registry.every().items():
                if isinstance(found, registry.Broken):
                    common.say(f"{name} cannot be loaded: {found.error}")
                else:
                    _reconcile(found.create(), store)
        records = store.jobs()
    if as_json:
        common.show_json([record.listed() for record in records])
    elif records:
        _table(records)
    else:
        common.say("no jobs yet; `ftlaunch demo` runs one")


def _reconcile(backend: Backend, store: Store) -> None:
    """Bring the record up to date with one place; one that cannot be asked is named and left as it was."""
    mine = [record for record in store.jobs() if record.backend == backend.name]
    for record in mine:
        try:
            with common.asked(backend):
                _, problem = refresh(record, store, backend)
        except InputError as error:
            problem = f"{error.message} ({error.hint})"
        if problem:
            common.say(f"{record.job}: {problem}")
    try:
        with common.asked(backend):
            for handle in backend.known():
                if store.get(handle.job_name) is None:
                    _adopt(handle, backend, store)
    except BackendError as error:
        common.say(f"{backend.name} cannot be asked: {error.message}")
    except InputError:
        return  # its extra is not installed, so nothing was started there from here


def _adopt(handle: Handle, backend: Backend, store: Store) -> None:
    record = Record(
        job=handle.job_name,
        content=f"known only by its place: {handle.job_name}",
        attempt=0,
        backend=backend.name,
        job_file="",
        as_submitted="",
        plan=None,
        target=str(Path.cwd() / "runs" / handle.job_name),
        handle=handle,
        submitted=time.time(),
    )
    store.add(record)
    store.observe(record.job, backend.status(handle))
    common.say(f"{record.job}: found on {backend.name}")


def _table(records: list[Record]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for column in ("job", "backend", "state", "reason", "created", "results"):
        table.add_column(column, no_wrap=column != "results", overflow="fold")
    for record in records:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created))
        state = record.state if record.submitted or record.ended else "intended"
        style = STYLES.get(record.state, "")
        table.add_row(record.job, record.backend, state, record.reason or "", created, _results(record), style=style)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _results(record: Record) -> str:
    if record.output:
        return record.output
    return f"ftlaunch fetch {record.job}" if record.state is State.SUCCEEDED else ""
