"""``ftlaunch backends``."""

from __future__ import annotations

import click

from backends import registry
from backends.interface import Backend
from launcher.cli import common


@click.command(epilog="Example: `ftlaunch backends --json`")
@common.json_option
def command(as_json: bool) -> None:
    """List the places where a job can run, and what each can do."""
    found = registry.every()
    if as_json:
        common.show_json([_document(name, each) for name, each in found.items()])
        return
    for name, each in found.items():
        if isinstance(each, registry.Broken):
            click.echo(f"{name}: cannot be loaded: {each.error} ({each.where})")
            continue
        able = [name for name, can in each.capabilities.model_dump().items() if can]
        click.echo(f"{name}: {each.summary}\n    can: {', '.join(able).replace('_', ' ')}")
        click.echo(f"    needs: pip install 'ftlaunch[{each.extra}]'")


def _document(name: str, found: type[Backend] | registry.Broken) -> dict[str, object]:
    if isinstance(found, registry.Broken):
        return {"backend": name, "error": found.error, "where": found.where}
    return {
        "backend": name,
        "summary": found.summary,
        "extra": found.extra,
        "capabilities": found.capabilities.model_dump(),
        "options": found.options.model_json_schema().get("properties", {}),
    }
