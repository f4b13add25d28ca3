"""``ftlaunch completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(epilog='Example: `eval "$(ftlaunch completion bash)"` in ~/.bashrc')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, jobs and files in SHELL."""
    found = get_completion_class(shell)
    assert found is not None  # click knows the three
    click.echo(found(ctx.find_root().command, {}, "ftlaunch", "_FTLAUNCH_COMPLETE").source())
