"""What must be light: the help, and a dry run. Measured on processes of their own."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import time

import click
import pytest

from launcher.cli import COMMANDS, cli
from tests.launcher.conftest import FTLAUNCH, Command, write_job

FRAMEWORKS = {"torch", "transformers", "numpy", "boto3", "proto", "requests", "azure", "google.auth", "docker", "rich"}
HEAVY = FRAMEWORKS | {"pydantic", "yaml"}
TRACE = "import sys; from launcher.cli import call; code = call(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"


def loaded(ftlaunch: Command, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", TRACE, *arguments],
        env=ftlaunch.environment,
        cwd=ftlaunch.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def best(call, tries: int = 5) -> float:
    return min(call() for _ in range(tries))


def cpu_seconds(*arguments: str, environment: dict[str, str]) -> float:
    return cpu_seconds_of([FTLAUNCH, *arguments], environment)


def cpu_seconds_of(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@functools.cache
def slowness() -> float:
    """How much slower this machine is than the one that the limits are meant for, where bare click takes 0.04 s."""
    bare = [sys.executable, "-c", "import click\nclick.Command('bare')(['--help'])"]
    return max(1.0, best(lambda: cpu_seconds_of(bare, dict(os.environ))) / 0.04)


def test_help_imports_nothing_heavy(ftlaunch):
    found = loaded(ftlaunch, "--help")
    assert "click" in found
    assert not found & HEAVY


def test_help_takes_little_time(ftlaunch):
    assert best(lambda: cpu_seconds("--help", environment=ftlaunch.environment)) <= 0.08 * slowness()


def test_help_takes_little_memory(ftlaunch):
    # A child's first page count is its parent's, so the parent has to be small.
    parent = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent, FTLAUNCH, "--help"],
        env=ftlaunch.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) <= 20 * 1024


def test_a_dry_run_is_quick_and_imports_no_framework(ftlaunch, monkeypatch):
    write_job(ftlaunch.folder / "birds")
    arguments = ("run", "birds", "--backend", "local", "--dry-run")
    found = loaded(ftlaunch, *arguments)
    assert not found & FRAMEWORKS

    monkeypatch.chdir(ftlaunch.folder)
    assert best(lambda: cpu_seconds(*arguments, environment=ftlaunch.environment)) <= 0.35 * slowness()

    def seconds() -> float:
        begin = time.perf_counter()
        ftlaunch(*arguments)
        return time.perf_counter() - begin

    if os.getloadavg()[0] < 0.7 * (os.cpu_count() or 1):  # others' work on this machine would be measured as well
        assert best(seconds) <= 0.35 * slowness()


def test_a_dry_run_opens_no_connection_and_starts_no_process(ftlaunch):
    write_job(ftlaunch.folder / "birds")
    trace = (
        "import sys\n"
        "def hook(event, values):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'subprocess.Popen', 'os.system', 'os.exec'):\n"
        "        raise SystemExit(f'{event} {values}')\n"
        "sys.addaudithook(hook)\n"
        "from launcher.cli import call\n"
        "sys.exit(call(['run', 'birds', '--backend', 'local', '--dry-run']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", trace], env=ftlaunch.environment, cwd=ftlaunch.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_dry_run_works_where_the_record_of_jobs_cannot_be_written(ftlaunch):
    write_job(ftlaunch.folder / "birds")
    ftlaunch("run", "birds", "--backend", "local", "--dry-run", FTLAUNCH_HOME="/proc/nowhere")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert "Example: `ftlaunch" in (command.epilog or "") or "ftlaunch completion" in (command.epilog or "")
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(ftlaunch, shell):
    assert "_FTLAUNCH_COMPLETE" in ftlaunch("completion", shell).stdout


def test_completion_completes_commands(ftlaunch):
    words = {"_FTLAUNCH_COMPLETE": "bash_complete", "COMP_WORDS": "ftlaunch st", "COMP_CWORD": "1"}
    assert "status" in ftlaunch(code=0, **words).stdout
