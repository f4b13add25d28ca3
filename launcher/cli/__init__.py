"""The command line, one file a command; a command's file is imported when it runs, and nothing heavy before."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from launcher.cli import complete

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "run": "Tune a model by a job file, and say honestly whether it helped.",
    "init": "Look at a data file and write a commented job file for it.",
    "check": "Look at every row of a job before anything is trained or paid for.",
    "rehearse": "Play a cloud's contract with the container here, before it is paid for.",
    "cost": "Compare what a job costs on every machine of every place.",
    "prices": "Bring the prices up to date that the comparison goes by.",
    "baseline": "Measure what the untuned model and a classical one can do.",
    "models": "List base models by domain, with size, licence and what they were trained on.",
    "screen": "Measure several base models before any tuning.",
    "sweep": "Look for the best settings by trials on the validation rows.",
    "curve": "Train on parts of the data, and say whether more of it would help.",
    "schema": "Print the JSON schema of a job file, for editors.",
    "jobs": "List all jobs, newest first.",
    "status": "Tell how a job stands.",
    "logs": "Print a job's output, or follow it.",
    "cancel": "Stop a job; it saves first.",
    "fetch": "Bring an ended job's results here.",
    "report": "Show what a job came to, on one HTML page.",
    "compare": "Show finished jobs side by side, and whether one is better for sure.",
    "push": "Publish a job's adapter, with its model card, on the hub.",
    "backends": "List the places where a job can run.",
    "image": "Build, push or show the training image.",
    "try": "Ask the base model and the tuned one side by side.",
    "export": "Make a model to take away: adapter, merged weights or GGUF.",
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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands; a job file that stands alone where no command begins so."""
        return super().shell_complete(ctx, incomplete) or complete.paths(ctx, None, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` before a job that stands alone, so that ``ftlaunch JOB`` runs it."""
        place = _end_of_own_options(args)
        bare = place == len(args) and not ctx.resilient_parsing  # a shell's completion wants the commands' names
        if place is not None and (bare or (place < len(args) and args[place] not in COMMANDS)):
            args = [*args[:place], "run", *args[place:]]
        return super().parse_args(ctx, args)


def _end_of_own_options(args: list[str]) -> int | None:
    """Where the options of ``ftlaunch`` itself end; None if they ask for help or the version, or lack a value."""
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
    return place if place <= len(args) else None


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="[COMMAND] [JOB]",
    epilog="Example: `ftlaunch init reviews.csv`, then `ftlaunch` runs the ./ftlaunch.yaml that it wrote. "
    "Ends with 0: done, 1: the job failed, 2: wrong input, 3: the place refused, 130: interrupted.",
)
@click.option(
    "--backend",
    metavar="NAME",
    shell_complete=complete.backends,
    help="Where the job runs: local, docker, sagemaker ... (`ftlaunch backends`).",
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
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it reads every installed package's metadata
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # who started us closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # to the end of the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character gets a ? for it
    code = call(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_stdout()
    sys.exit(code)


def _leave_stdout() -> None:
    """Let what is still to be written go nowhere: the reader of our output has left, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


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
        click.echo("interrupted", err=True)
        return 130
    except (BrokenPipeError, SystemExit):  # click and rich leave by the latter where the reader has left
        _leave_stdout()
        return 0
    except Exception as error:
        told = import_module("launcher.cli.common").explained(error)
        if told is None:
            raise
        return int(told)
    return code if isinstance(code, int) else 0
