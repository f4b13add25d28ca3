"""``ftlaunch logs``."""

from __future__ import annotations

from dataclasses import replace

import click

from backends import secret_values
from backends.interface import BackendError, Status
from launcher.cli import common
from launcher.store import Record, Store
from launcher.watch import Watch


@click.command(epilog="Example: `ftlaunch logs -f definitions-1a2b`")
@common.job_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends; Ctrl-C leaves it running.")
def command(job: str, follow: bool) -> int:
    """Print the output of JOB on standard output: its name, or an unambiguous beginning of it."""
    with common.opened_store() as store:
        record = common.find_record(store, job)
        if follow and record.ended is None and record.handle is not None:
            return _follow(record, store)
        _print(record, store)
    return 0


class Lines:
    """A view that prints the job's lines alone."""

    def line(self, text: str, parsed: tuple[str, dict[str, float | str]] | None) -> None:
        """Print it."""
        click.echo(text)

    def status(self, status: Status) -> None:
        """The lines tell enough."""

    def note(self, text: str) -> None:
        """Say it beside the lines."""
        common.say(text)


def _follow(record: Record, store: Store) -> int:
    backend = common.backend_of(record)
    from_the_first = replace(record, cursor=None)
    with common.asked(backend):
        ended = Watch(from_the_first, store, backend, Lines()).to_end()
    common.say(f"{ended.job} is {ended.state}" + (f": {ended.message}" if ended.message else ""))
    return common.code_of(ended)


def _print(record: Record, store: Store) -> None:
    """The log kept with the results, else the place's own: what was kept before a resume is not all of it."""
    kept = store.log(record.job)
    if record.ended is not None and record.output is not None and kept.is_file():
        click.echo(kept.read_text(encoding="utf-8"), nl=False)
        return
    if record.handle is None:
        raise BackendError(f"{record.job} was never started", hint=f"ftlaunch status {record.job}")
    backend = common.backend_of(record)
    secrets = secret_values.known(record.secrets)
    try:
        with common.asked(backend):
            for line in backend.logs(record.handle, None):
                click.echo(secret_values.mask(line.text, secrets))
    except BackendError as error:
        if not kept.is_file():
            raise
        common.say(f"as it was kept at the last fetch; {backend.name} cannot be asked: {error.message}")
        click.echo(kept.read_text(encoding="utf-8"), nl=False)
