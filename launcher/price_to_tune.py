"""What it would take to tune a base model: at the job's own place, and where the bill is the smallest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.interface import Offer
from launcher import lifecycle
from launcher.cost import compare, history
from launcher.job import JobFile
from launcher.store import Store
from training_image.errors import InputError


@dataclass(frozen=True)
class Tuning:
    """The whole job at one machine, baselines and evaluations among it."""

    backend: str
    machine: str
    usd: dict[str, float] | None
    """low, expected, high; 0 without a bill, None where the price or the time is not known."""
    hours: dict[str, float] | None
    """The same of the running time."""


@dataclass(frozen=True)
class Price:
    """Of one base model; None where nothing can be told."""

    here: Tuning | None
    cheapest: Tuning | None
    """With a bill, and enough memory."""


def price_to_tune(file: JobFile, store: Store, offers: Sequence[Offer]) -> Price:
    """What the job would take with its base model; nothing is known of a model whose shape cannot be told."""
    try:
        found = lifecycle.make_plan(file, store).estimate
        estimator = compare.Estimator(file, history.own_runs(store))
    except InputError:
        return Price(None, None)
    row = compare.cheapest([estimator.row(offer) for offer in offers])
    return Price(None if found is None else _planned(found), None if row is None else _cheapest(row))


def _planned(found: dict[str, Any]) -> Tuning:
    return Tuning(found["backend"], found["machine"], found["usd"], found["billed_hours"])


def _cheapest(row: compare.Row) -> Tuning:
    assert row.duration is not None  # it has a total
    hours = compare.named([seconds / 3600 for seconds in row.duration.billed])
    return Tuning(row.offer.backend, row.offer.machine, compare.named(row.total), hours)
