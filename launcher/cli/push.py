"""``ftlaunch push``."""

from __future__ import annotations

import click

from launcher.cli import common


@click.command(epilog="Example: `ftlaunch push definitions-1a2b my-team/definitions --private`")
@common.job_argument
@click.argument("hub_id")
@click.option("--private", is_flag=True, help="Make the repository private, where it is new.")
@common.json_option
def command(job: str, hub_id: str, private: bool, as_json: bool) -> None:
    """Upload the adapter of JOB to the hub as HUB_ID (organisation/name), with its tokenizer and its model card.

    The card has the verdict, the counts of the data and where they come from; no rows and no predictions are sent.
    The token is HF_TOKEN, else that of `hf auth login`; HF_ENDPOINT names another hub.
    """
    from launcher import hub
    from launcher.report import finished

    with common.opened_store() as store:
        read = finished.read(*common.find_results(store, job))
    address = hub.push(read, hub_id, private=private, say=common.say)
    if as_json:
        common.show_json({"job": read.result["job"], "hub_id": hub_id, "url": address})
    else:
        click.echo(address)
