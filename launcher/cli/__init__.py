"""The command line, one file a command; a command's file is imported when it runs, and nothing heavy before."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

COMMANDS = {
    "run": "Tune a model by a job file, and say honestly whether it helped.",
    "init": "Look at a data file and write a commented job file for it.",
    "check": "Look at every row of a job before anything is trained or paid for.",
    "baseline": "Measure what the untuned model and a classical one can do.",
    "schema": "Print the JSON schema of a job file, for editors.",
    "jobs": "List all jobs, newest first.",
    "status": "Tell how a job stands.",
    "logs": "Print a job's output, or follow it.",
    "cancel": "Stop a job; it saves first.",
    "fetch": "Bring an ended job's results here.",
    "backends": "List the places where a job can run.",
    "try": "Ask the base model and the tuned one side by side.",
    "demo": "Tune a small real model on real data on this machine.",
    "completion": "Print the shell's completion script.",
}
"""Every command and its line in ``ftlaunch --help``; ``try`` lives in ``try_.py``."""


class Commands(click.Group):
    """Imports a command when it is called; an argument that is no command is a job to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's file."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"launcher.cli.{'try_' if cmd_name == 'try' else cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` before a job that stands alone, so that ``ftlaunch JOB`` runs it."""
        place = _end_of_own_options(args)
        bare = place == len(args) and not ctx.resilient_parsing  # a shell's completion wants the commands' names
        if place is not None and (bare or (place < len(args) and args[place] not in COMMANDS)):
            args = [*args[:place], "run", *args[place:]]
        return super().parse_args(ctx, args)


def _end_of_own_options(args: list[str]) -> int | None:
    """Where the options of ``ftlaunch`` itself end; None if they ask for help or the version."""
    place = 0
    while place < len(args):
        if args[place] in ("--help", "-h", "--version"):
            return None
        if args[place] == "--backend":
            place += 2
        elif args[place].startswith("--backend="):
            place += 1
        else:
            break
    return min(place, len(args))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="[COMMAND] [JOB]",
    epilog="Example: `ftlaunch init reviews.csv`, then `ftlaunch` runs the ./ftlaunch.yaml that it wrote. "
    "Ends with 0: done, 1: the job failed, 2: wrong input, 3: the place refused, 130: interrupted.",
)
@click.option(
    "--backend", metavar="NAME", help="Where the job runs: local, docker, sagemaker ... (`ftlaunch backends`)."
)
@click.version_option(package_name="ftlaunch", message="%(version)s")
@click.pass_context
def cli(ctx: click.Context, backend: str | None) -> None:
    """Fine-tune a language model with one command, anywhere, and be told honestly whether it helped.

    JOB is a job file, or a folder that holds ftlaunch.yaml; without a COMMAND it is run.
    """
    ctx.obj = backend


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run a command line; gives its exit code. What the user or the place got wrong is told without a traceback."""
    try:
        code: Any = cli.main(arguments, prog_name="ftlaunch", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except Exception as error:
        told = import_module("launcher.cli.common").explained(error)
        if told is None:
            raise
        return int(told)
    return code if isinstance(code, int) else 0
