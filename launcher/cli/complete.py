"""What the shell completes at Tab, beside commands and options; nothing here asks a place."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def paths(_context: click.Context, _parameter: click.Parameter | None, incomplete: str) -> list[CompletionItem]:
    """Files and folders, by the shell itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of recorded jobs, newest first, each with its state; files and folders where no name begins so."""
    from click.shell_completion import CompletionItem

    from backends.home import data_home
    from launcher.store import Store
    from training_image.errors import InputError

    if (data_home() / "jobs.db").is_file():  # else opening it would make one
        with contextlib.suppress(InputError), contextlib.closing(Store()) as store:
            begun = [record for record in store.jobs() if record.job.startswith(incomplete)]
            if begun:
                return [CompletionItem(record.job, help=record.state) for record in begun]
    return paths(context, parameter, incomplete)


def backends(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of backends."""
    from backends import registry

    return [name for name in registry.names() if name.startswith(incomplete)]


def domains(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Domains of base models."""
    from launcher.models_table import known_models

    found = sorted({domain for model in known_models() for domain in model.domains})
    return [domain for domain in found if domain.startswith(incomplete)]
