"""What a job has cost, by the service's account of it and the price kept with it; never priced again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def actual_usd(
    found: Mapping[str, Any] | None, billed: float | None, ended: bool, elapsed: float | None
) -> float | None:
    """What a job has cost: the service's billed seconds (of all machines) at the price kept at submit. Where the place
    keeps no account, the seconds from submit to end by our clock, once it has ended. None: not known."""
    if found is None or found.get("rate") is None:
        return None
    rate = float(found["rate"])
    if billed is not None:
        return billed * rate
    if not ended or elapsed is None:
        return None
    return elapsed * rate * int(found.get("machines", 1))
