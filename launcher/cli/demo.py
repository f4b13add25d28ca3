"""``ftlaunch demo``."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common
from launcher.cli.run import command as run


@click.command(epilog="Example: `ftlaunch demo`")
@common.json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> int:
    """Tune a small real model on real data on this machine: which kind of thing does a dictionary definition describe?

    It takes some minutes on two cores, and shows what a job's end looks like.
    """
    from launcher.demo_model import made_apart
    from training_image.errors import InputError

    job = Path(__file__).parents[2] / "examples" / "definitions"
    if not job.is_dir():
        raise InputError(f"the examples are not at {job}", hint="run the demo in a clone of the repository")
    with common.asked(common.local()):
        made_apart()
    code: int = ctx.invoke(run, job=str(job), backend="local", as_json=as_json, yes=True)
    return code
