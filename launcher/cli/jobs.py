"""``ftlaunch jobs``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import click

from backends import registry
from backends.interface import Backend, BackendError, Handle, State
from launcher.cli import common
from launcher.store import Record, Store
from launcher.watch import refresh
from training_image.errors import InputError

STYLES = {State.SUCCEEDED: "green", State.FAILED: "red", State.CANCELLED: "yellow"}


@click.command(epilog="Example: `ftlaunch jobs --reconcile`, after a crash or on a new machine.")
@click.option("--reconcile", is_flag=True, help="Ask every place for its jobs, recorded or lost.")
@click.option("--cost", is_flag=True, help="Show what each job was expected to cost, and what it did.")
@common.json_option
def command(reconcile: bool, cost: bool, as_json: bool) -> None:
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
        common.show_json([record.listed() | (_cost_document(record) if cost else {}) for record in records])
    elif records and cost:
        _cost_table(records)
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
    rows = []
    for record in records:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created))
        state = record.state if record.submitted or record.ended else "intended"
        rows.append((record.job, record.backend, state, record.reason or "", created, _results(record)))
    heads = ("job", "backend", "state", "reason", "created", "results")
    _print(heads, rows, records, ("results", "created", "backend", "reason"))


def _print(
    heads: Sequence[str], rows: Sequence[Sequence[str]], records: Sequence[Record], spare: Sequence[str]
) -> None:
    """A line a job, in the colour of its state."""
    from rich.table import Table

    table = Table(box=None)
    for head in heads:
        table.add_column(head, no_wrap=True, justify="right" if "$" in head or head == "billed" else "left")
    for record, row in zip(records, rows, strict=True):
        table.add_row(*row, style=STYLES.get(record.state, ""))
    common.print_table(table, spare, "`ftlaunch status JOB` has more, --json all")


def _cost_document(record: Record) -> dict[str, object]:
    return {"billable_seconds": record.billable_seconds, "estimate": record.estimate}


def _cost_table(records: list[Record]) -> None:
    """Estimate against actual, each job at the price of its own day."""
    heads = ("job", "place", "state", "expected $", "actual $", "billed", "price of")
    rows = [(record.job, _place(record), record.state, *_dollars(record), _price(record)) for record in records]
    _print(heads, rows, records, ("price of", "place", "billed", "state", "expected $"))
    known = [record.actual_usd for record in records if record.actual_usd is not None]
    unknown = len(records) - len(known)
    rest = f"; of {unknown} others nothing is known" if unknown else ""
    click.echo(f"{sum(known):.2f} dollars for {len(known)} job{'' if len(known) == 1 else 's'}{rest}")


def _place(record: Record) -> str:
    machine = record.estimate["machine"] if record.estimate else ""
    return f"{record.backend} {machine}".strip()


def _dollars(record: Record) -> tuple[str, str, str]:
    """Expected with its range, actual with where it lies, and the billed time."""
    usd = (record.estimate or {}).get("usd")
    expected = f"{usd['expected']:.2f} ({usd['low']:.2f}-{usd['high']:.2f})" if usd else "?"
    if record.actual_usd is None:
        return expected, "?", ""
    actual = f"{record.actual_usd:.2f}"
    if usd and record.actual_usd > usd["high"]:
        actual += " above"
    elif usd and record.ended is not None and record.actual_usd < usd["low"]:
        actual += " below"
    if record.billable_seconds is not None:
        return expected, actual, f"{record.billable_seconds / 60:.1f} min"
    return expected, actual, "by our clock" if record.actual_usd else "no bill"


def _price(record: Record) -> str:
    price = (record.estimate or {}).get("price") or {}
    return f"{price['kind']} {price['as_of']}".strip() if price else ""


def _results(record: Record) -> str:
    if record.output:
        with contextlib.suppress(OSError, ValueError):  # no folder to be in, or another
            return str(Path(record.output).relative_to(Path.cwd()))
        return record.output
    return f"ftlaunch fetch {record.job}" if record.state is State.SUCCEEDED else ""
