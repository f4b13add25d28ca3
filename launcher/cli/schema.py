"""``ftlaunch schema``."""

from __future__ import annotations

import click

from launcher.cli import common
from launcher.job import schema


@click.command(epilog="Example: `ftlaunch schema > ftlaunch.schema.json`, then name it in your editor's YAML settings.")
def command() -> None:
    """Print the JSON schema of a job file, with the options of every place, for editors."""
    common.show_json(schema())
