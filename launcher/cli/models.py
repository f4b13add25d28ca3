"""``ftlaunch models``: base models by domain."""

from __future__ import annotations

import click

from launcher.cli import common, complete

READ = {"card": "on its page", "others": "elsewhere", "no": "not checked"}
SPARE = ("as of", "source", "trained on", "licence read", "domain", "kind")
"""Columns that a narrow terminal does without, the first of them first."""


@click.command(epilog="Example: `ftlaunch models --domain medical`, then `ftlaunch screen JOB --domain medical`")
@click.option(
    "--domain",
    metavar="NAME",
    shell_complete=complete.domains,
    help="Only those of a domain: general, medical, legal, finance, code ...",
)
@common.json_option
def command(domain: str | None, as_json: bool) -> None:
    """List base models by domain: kind, size, licence, what they were trained on, and the source of each line.

    The table is dated; a model's own card is what counts. Any other model of the hub can be used as well.
    """
    from launcher.models_table import known_models

    found = known_models(domain)
    if as_json:
        common.show_json([model.document() for model in found])
        return
    from rich.table import Table

    table = Table(box=None)
    for head in ("model", "kind", "size", "licence", "licence read", "domain", "trained on", "source", "as of"):
        table.add_column(head, no_wrap=head != "model", overflow="fold")
    for model in found:
        told = (model.kind, size(model.parameters), model.licence, READ[model.licence_read], ", ".join(model.domains))
        table.add_row(model.id, *told, model.trained_on, model.source, model.as_of)
    common.print_table(table, SPARE)


def size(parameters: int | None) -> str:
    """A number of weights in words."""
    if parameters is None:
        return "-"
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
