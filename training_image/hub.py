"""The hub, asked once whether it is there: its client would retry for a minute before it says no."""

from __future__ import annotations

from functools import cache

PATIENCE = 10
"""Seconds that the hub has to answer."""


@cache
def offline_if_out_of_reach() -> None:
    """From here on find only what is cached on this machine, if the hub does not answer (``HF_HUB_OFFLINE``).

    To be called before a hub id is loaded; proxies and mirrors (``HF_ENDPOINT``) are those of the hub's own client.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # whatever the client raises: there was no answer
        constants.HF_HUB_OFFLINE = True
