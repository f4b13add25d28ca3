"""``ftlaunch run``: plan, start, follow, fetch, and tell whether it helped."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import click

from backends.home import config_home
from backends.interface import BackendError, State
from launcher import lifecycle
from launcher.cli import COMMANDS, common, transfer
from launcher.cost.estimate import told
from launcher.job import load
from launcher.store import Record, Store
from training_image.errors import InputError


@click.command(
    epilog="Example: `ftlaunch run examples/definitions --backend docker --set train.epochs=1`. "
    "Ends with 0: done, 1: the job failed, 2: wrong input, 3: the place refused, 130: interrupted."
)
@common.job_file_argument
@common.backend_option
@click.option("--dry-run", is_flag=True, help="Print the exact request that would be sent, and send nothing.")
@click.option("--notebook", is_flag=True, help="Write a notebook to run by hand (Colab), and start nothing.")
@click.option("--detach", is_flag=True, help="Start the job and leave; `ftlaunch status` and `fetch` do the rest.")
@common.set_option
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results; default: ./runs/JOB.")
@click.option("--reuse", is_flag=True, help="Show the earlier job of the same content instead of running it again.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the earlier job that did not succeed.")
@common.json_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask before something is paid for.")
@click.pass_context
def command(
    ctx: click.Context,
    job: str | None,
    backend: str | None,
    dry_run: bool,
    notebook: bool,
    detach: bool,
    sets: tuple[str, ...],
    output: Path | None,
    reuse: bool,
    resume: bool,
    as_json: bool,
    yes: bool,
) -> int:
    """Tune a model by the job file JOB (default: ./ftlaunch.yaml), and say honestly whether it helped.

    A job of the same content that is running already is followed, not started twice.
    """
    _refuse_a_slip(job)
    file = load(job, sets, common.chosen_backend(ctx, backend))
    if dry_run:
        return _dry_run(lifecycle.make_plan(file, store_if_any()), as_json)
    with common.opened_store() as store:
        planned = lifecycle.make_plan(file, store)
        if notebook:
            return _notebook(planned, store, output, as_json)
        earlier = planned.earlier[-1] if planned.earlier and planned.live is None else None
        if reuse and earlier is not None:
            return shown(earlier, store, output, as_json)
        if resume and earlier is not None:
            with transfer.shown():
                record = lifecycle.resume(planned, earlier, store, common.say)
        else:
            lifecycle.check_data(planned, common.say)
            ask(planned, yes)
            record = launched(planned, store, output)
        if detach:
            return _detached(record, as_json)
        return attached(record, store, output, as_json)


def _refuse_a_slip(job: str | None) -> None:
    """A JOB that is no file but nearly a command is most likely that command."""
    near = difflib.get_close_matches(job or "", COMMANDS, n=1, cutoff=0.75)
    if job and near and not Path(job).exists():
        hint = f"did you mean `ftlaunch {near[0]}`?"
        raise InputError(f"{job!r} is neither a command nor a job file or folder", hint=hint)


def store_if_any() -> Store | None:
    """The record of jobs; a dry run does without where it cannot be opened."""
    try:
        return Store()
    except InputError:
        return None


def _dry_run(planned: lifecycle.Planned, as_json: bool) -> int:
    if as_json:
        common.show_json(planned.document())
        return 0
    from launcher import yamlfile

    click.echo(f"{planned.plan.job_name} on {planned.plan.backend}; this is what would be sent:\n")
    click.echo(yamlfile.dump({"request": planned.plan.request, "inputs": planned.plan.inputs}).rstrip())
    if planned.estimate is not None and planned.estimate["price"]["kind"] != "free":
        click.echo(f"\nexpected to be billed {told(planned.estimate)}; ftlaunch cost compares")
    if planned.plan.unresolved:
        click.echo(f"\nnot given, in the job file or, for all jobs, in {config_home() / 'config.yaml'}:")
    for each in planned.plan.unresolved:
        click.echo(f"  {each.path}: {each.hint}")
    return 0


def _notebook(planned: lifecycle.Planned, store: Store, output: Path | None, as_json: bool) -> int:
    from launcher import by_hand

    record, files = by_hand.write(planned, store, output)
    for path in files[1:]:
        common.say(f"{path} goes into My Drive: it is too large for the notebook")
    common.say(f"open the notebook in Colab and run it; then: ftlaunch fetch {record.job} --from {record.job}.tar")
    if as_json:
        common.show_json(record.document() | {"files": [str(path) for path in files]})
    else:
        click.echo(str(files[0]))
    return 0


def ask(planned: lifecycle.Planned, yes: bool) -> None:
    """Ask before a job with a bill is started (only people at a terminal are asked)."""
    if not planned.bills or yes or planned.live is not None or not sys.stdin.isatty():
        return
    limit = planned.plan.max_seconds
    price = told(planned.estimate)
    words = f"for at most {limit / 3600:.1f} hours" if limit else "without a limit (budget.max_hours sets one)"
    question = f"{planned.plan.job_name} will be billed on {planned.backend.name}, {price}, {words}. Start it?"
    if not click.confirm(question, err=True):
        raise click.Abort


def launched(planned: lifecycle.Planned, store: Store, output: Path | None) -> Record:
    """`lifecycle.launch`, with what it sends shown."""
    with transfer.shown():
        return lifecycle.launch(planned, store, output, common.say)


def _detached(record: Record, as_json: bool) -> int:
    common.say(f"{record.job} runs on its own; follow it: ftlaunch logs -f {record.job}")
    if as_json:
        common.show_json(record.document())
    else:
        click.echo(record.job)
    return 0


def attached(
    record: Record, store: Store, output: Path | None, as_json: bool, head: dict[str, Any] | None = None
) -> int:
    """Follow a job to its end, then `shown`; gives the exit code."""
    from launcher.cli.follow import follow

    followed = follow(record, store)
    if followed is None:
        return common.INTERRUPTED
    if followed.state is State.CANCELLED:
        common.say(f"{followed.job} was cancelled; what it saved: ftlaunch fetch {followed.job}")
    elif followed.state is not State.SUCCEEDED:
        common.say(f"error: {followed.job} failed ({followed.reason or 'UNKNOWN'}): {followed.message}")
        common.say(f"hint: its output: ftlaunch logs {followed.job}; what it saved: ftlaunch fetch {followed.job}")
    return shown(followed, store, output, as_json, head)


def shown(record: Record, store: Store, output: Path | None, as_json: bool, head: dict[str, Any] | None = None) -> int:
    """Fetch what a successful job made and show how it went; ``head``: a document that takes the job's as ``job``."""
    from launcher import results
    from launcher.cli.summary import show

    folder = None
    if record.state is State.SUCCEEDED:
        backend = common.backend_of(record)
        try:
            with common.asked(backend):
                folder = results.collect(record, store, backend, output, common.say)
        except (InputError, BackendError):
            common.say(f"{record.job} succeeded, and its results are kept: ftlaunch fetch {record.job} --output FOLDER")
            raise
    record = store.get(record.job) or record
    if as_json:
        document = record.document() | {"output": None if folder is None else str(folder)}
        common.show_json(document if head is None else head | {"job": document})
    elif folder is not None:
        show(folder)
    return common.code_of(record)
