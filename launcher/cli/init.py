"""``ftlaunch init``: a job file for a data file."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import common, complete
from training_image.errors import InputError


@click.command(
    epilog="Example: `ftlaunch init reviews.csv --output reviews/ftlaunch.yaml`, then `ftlaunch check reviews`"
)
@click.argument("data", shell_complete=complete.paths)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("ftlaunch.yaml"),
    show_default=True,
    help="The job file to write.",
)
@click.option("--model", help="The base model: a hub id (org/name) or a folder; default: SmolLM2-135M-Instruct.")
@click.option("--force", is_flag=True, help="Write over a job file that is there.")
def command(data: str, output: Path, model: str | None, force: bool) -> int:
    """Look at DATA (a jsonl, json, csv or parquet file, a folder with train.*, or hub:ORG/NAME) and write a job file.

    Task and columns are guessed and said in comments; validation and test files beside a train file are found.
    """
    from launcher import init_job

    if output.exists() and not force:
        raise InputError(f"{output} is already there", hint="--force writes over it, --output NAME beside it.")
    files = init_job.find_files(data)
    text = init_job.job_file(files, output.absolute().parent, model or init_job.DEFAULT_MODEL)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    common.say(f"wrote {output}; next: ftlaunch check {output}")
    return 0
