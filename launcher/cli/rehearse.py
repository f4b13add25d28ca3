"""``ftlaunch rehearse``: the service's contract played on the engine here, before anything is paid for."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING

import click

from backends import registry
from launcher.cli import common
from launcher.job import load
from training_image.contracts import CONTRACTS

if TYPE_CHECKING:
    from launcher.rehearsal.play import Report

COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


@click.command(
    epilog="Example: `ftlaunch rehearse examples/definitions --backend sagemaker --interrupt`. "
    "Ends with 0: the service would run the job, 1: it would not, 2: wrong input, 3: no engine or image."
)
@common.job_file_argument
@click.option(
    "--backend",
    metavar="NAME",
    shell_complete=lambda _context, _parameter, begun: [name for name in CONTRACTS if name.startswith(begun)],
    help="The service to play: sagemaker, vertex, azureml, colab; default: the job's.",
)
@click.option("--interrupt", is_flag=True, help="Take the machine away in the middle, and start a second one.")
@common.set_option
@common.json_option
@click.pass_context
def command(
    ctx: click.Context, job: str | None, backend: str | None, interrupt: bool, sets: tuple[str, ...], as_json: bool
) -> int:
    """Run a few steps of the job file JOB in the real image, under Docker, as the service would start it: its folders,
    files, environment, arguments, limits and signals. Tells what the service would have seen. Costs nothing.
    """
    from launcher.rehearsal import play

    name = common.chosen_backend(ctx, backend)
    unmade = name in CONTRACTS and name not in registry.names()
    file = load(job, sets, "local" if unmade else name)
    prepared = play.prepare(file, name if name and unmade else file.job.backend)
    if prepared.backend is None:
        common.say("no backend here makes a plan for it that could be played: the contract alone is")
    from launcher.cli.view import make_view

    signal.signal(signal.SIGTERM, _leave)
    with make_view(f"{prepared.name}, rehearsed") as view:
        from training_image.progress import parse

        report = play.rehearse(prepared, lambda text: view.line(text, parse(text)), view.note, interrupt=interrupt)
    if as_json:
        common.show_json(report.document())
    else:
        _show(report)
    return 0 if report.ok else common.FAILED


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave as at Ctrl-C, which removes the containers."""
    raise KeyboardInterrupt


def _show(report: Report) -> None:
    layout = report.layout
    click.echo(f"{report.job.name} as {layout.contract.service} would start it")
    for holds, paths in report.document()["folders"].items():
        click.echo(f"  {holds:12} {', '.join(paths) or layout.spec}")
    for check in report.checks:
        click.secho(f"{check.level:8}", fg=COLOURS[check.level], nl=False)
        click.echo(f"{check.code}: {check.message}")
        if check.hint:
            click.echo(f"{'':8}{check.hint}")
    click.secho("would run" if report.ok else "would fail", fg="green" if report.ok else "red", bold=True)
