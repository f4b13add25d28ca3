"""``ftlaunch prices refresh``: today's prices from the services' own lists."""

from __future__ import annotations

import click

from launcher.cli import common
from launcher.cost import live, sources


@click.group(epilog="Example: `ftlaunch prices refresh --source aws --region eu-west-1`")
def command() -> None:
    """Bring the prices up to date that `ftlaunch cost` compares.

    A source that fails changes nothing: the prices before stay, with their own dates.
    """


@command.command(
    epilog="Example: `ftlaunch prices refresh`, or `ftlaunch prices refresh --source azure --region westus3`"
)
@click.option(
    "--source",
    "names",
    type=click.Choice(list(sources.SOURCES)),
    multiple=True,
    help="Ask this source only; may be given often. Default: all of them.",
)
@click.option("--region", metavar="NAME", help="Region of the source; give --source with it.")
@common.json_option
def refresh(names: tuple[str, ...], region: str | None, as_json: bool) -> int:
    """Ask AWS and Azure (no credentials), Azure ML and Google (with them) and Colab's own tool for their prices.

    Ends with 3 if no source gave any.
    """
    if region and len(names) != 1:
        raise click.UsageError("--region needs exactly one --source")
    told: list[live.Outcome] = []
    for name in names or tuple(sources.SOURCES):
        place, usual, fetch = sources.SOURCES[name]
        outcome = live.refresh(name, place, usual if region is None else region, fetch)
        told.append(outcome)
        _tell(outcome)
    if as_json:
        common.show_json([_document(outcome) for outcome in told])
    return 0 if any(not outcome.error for outcome in told) else common.REFUSED


def _tell(outcome: live.Outcome) -> None:
    for complaint in outcome.complaints:
        common.say(f"warning: not believed: {complaint}")
    if outcome.vanished:
        common.say(f"warning: {outcome.source} names no more: {', '.join(outcome.vanished)}; the old prices stay")
    if outcome.error:
        common.say(f"{outcome.source}: the prices before stay as they were: {outcome.error}")
    else:
        common.say(f"{outcome.source}: {len(outcome.prices)} prices")


def _document(outcome: live.Outcome) -> dict[str, object]:
    return {
        "source": outcome.source,
        "prices": len(outcome.prices),
        "error": outcome.error or None,
        "not_believed": outcome.complaints,
        "vanished": outcome.vanished,
    }
