"""The comparison: one row a machine of every place, priced, timed and weighed, in one order with one recommendation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from backends import hardware, prices, registry
from backends.interface import Offer
from launcher.cost import counts, duration, memory, places, shapes, speed
from launcher.cost.duration import Duration
from launcher.cost.places import Range
from launcher.job import JobFile

PLENTY = 4.0
"""Times the 16-bit weights that must be free for a base in 16 bits (`training_image.model`)."""
RUNTIME_GIB = 0.65
"""What Python and torch hold on a machine without a GPU (0.62 GiB with next to no model)."""
HEAP = 1.5
"""What the C library's heap holds there over what is in use (SmolLM2-135M: docs/cost.md)."""
FILE_BYTES = 2
"""Of a weight in the base model's file, which stays mapped there after it was read."""
SPOT_REPEATED = 1.5
"""How much longer a job on spot may be billed, after interruptions; an assumption."""
SAGEMAKER_SPOT = (0.1, 0.3, 1.0)
"""SageMaker's spot bill as shares of that on demand: AWS speaks of up to 90 % off, the one published run had 70 % off,
and nothing is promised. The seconds shrink, never the rate as well."""
PATIENCE_HOURS = 1.0
"""A place without a bill is recommended if it needs no longer than this."""


@dataclass(frozen=True, slots=True)
class Row:
    """A machine with what the job needs there."""

    offer: Offer
    verdict: str
    """``fits``, ``tight``, ``no``, or ``?`` for a GPU that is not known."""
    needed_gib: float
    usable_gib: float | None
    setup: memory.Setup
    device: str
    duration: Duration | None
    """None where the GPU is not known."""
    basis: str
    limits: str
    counted: str
    """How the tokens were counted."""

    @property
    def stale(self) -> bool:
        """Whether the price is so old that it is not to be ranked first."""
        days = prices.age_days(self.offer.as_of)
        return days is None or days > prices.STALE_DAYS

    @property
    def free(self) -> bool:
        """Whether nobody bills it."""
        return self.offer.kind == "free"

    @property
    def total(self) -> Range | None:
        """Dollars on demand; None where the price or the time is unknown, and where there is no bill."""
        return self._dollars(self.offer.usd_per_hour, (1.0, 1.0, 1.0))

    @property
    def spot(self) -> Range | None:
        """Dollars on spot; None where nothing is known of it."""
        if self.offer.backend == "sagemaker":
            return self._dollars(self.offer.usd_per_hour, SAGEMAKER_SPOT)
        return self._dollars(self.offer.usd_per_hour_spot, (1.0, 1.0, SPOT_REPEATED))

    def dollars(self, spot: bool) -> Range | None:
        """The total on spot, or on demand."""
        return self.spot if spot else self.total

    @property
    def hours(self) -> Range:
        """From submit to results; endless where nothing is known."""
        if self.duration is None:
            return (float("inf"),) * 3
        found = duration.together(self.duration.billed, self.duration.wait)
        return found[0] / 3600, found[1] / 3600, found[2] / 3600

    def _dollars(self, rate: float | None, shares: Range) -> Range | None:
        if rate is None or self.duration is None or self.free or not prices.credible(rate, self.offer.gpu_count):
            return None
        low, expected, high = (seconds / 3600 * rate for seconds in self.duration.billed)
        return low * shares[0], expected * shares[1], high * shares[2]

    def document(self) -> dict[str, Any]:
        """The row as ``cost --json`` has it."""
        offer, told = self.offer, self.duration
        hours = None
        if told is not None:
            train = named(tuple(seconds / 3600 for seconds in told.train))
            hours = {"train": train, "overhead": told.overhead[1] / 3600, "wait": told.wait[1] / 3600}
        return {
            "backend": offer.backend,
            "machine": offer.machine,
            "region": offer.region,
            "gpu": offer.gpu,
            "gpu_count": offer.gpu_count,
            "fit": {
                "verdict": self.verdict,
                "needed_gib": round(self.needed_gib, 2),
                "usable_gib": self.usable_gib,
                "sharded": self.setup.shards > 1,
            },
            "hours": hours,
            "total_usd": named(self.total),
            "spot_usd": named(self.spot),
            "price": {
                "usd_per_hour": offer.usd_per_hour,
                "usd_per_hour_spot": offer.usd_per_hour_spot,
                "kind": offer.kind,
                "as_of": offer.as_of,
                "source": offer.source,
            },
            "rests_on": self.basis,
            "tokens": self.counted,
            "limits": self.limits,
        }


class Estimator:
    """Weighs the machines for one job. Raises InputError for a model of unknown shape, or rows that cannot be read."""

    def __init__(self, file: JobFile, own: Sequence[speed.Run] = ()) -> None:
        """``own``: trainings of this user that were measured."""
        from launcher import submission

        self.file, self.own = file, own
        self.spec = submission.with_own_paths(file)
        self.shape = shapes.find(file.job.model.id, file.model_folder)
        self.counts = counts.count(file, self.shape)

    def work(self, device: str = "gpu", gpus: int = 1) -> duration.Work:
        """What one machine has to do: the busiest of its GPUs, or its processors (``gpu`` or ``cpu``)."""
        return duration.work(self.spec, self.counts, device, processes=gpus)

    def row(self, offer: Offer) -> Row:
        """What the job needs on a machine."""
        known = hardware.gpu(offer.gpu) if offer.gpu else None
        device = "gpu" if offer.gpu_count else "cpu"
        gpus = max(1, offer.gpu_count)
        todo = self.work(device, gpus)
        if device == "cpu":
            usable: float | None = _memory_gib()
            rate: speed.Speed | None = speed.predict_cpu(cores(), self.own)
        else:
            usable = known.usable_gib if known else None
            rate = None
        method = self.spec.train.method
        quantised = method == "qlora" or (method == "auto" and not self._plenty(usable))
        setup = duration.setup_for(self.spec, self.shape, todo, quantised, device)
        cards = gpus if self._shardable else 1
        verdict, setup, peak = memory.fit(self.shape, setup, usable or 0.0, todo.longest, cards)
        needed = peak.needed if device == "gpu" else self._resident(peak)
        if known is not None:
            rate = speed.predict(known.name, duration.weights_met(self.shape, setup) * setup.tokens, self.own)
        place = places.place(offer.backend)
        if self.file.model_folder is not None and offer.kind == "free" and offer.backend in ("local", "docker"):
            place = place._replace(hub=0.0)
        told = None
        if rate is not None:
            told = duration.duration(self.shape, todo, setup, rate, place, device)
        limits = places.FREE_LIMITS.get(offer.machine, place.limits) if offer.kind == "free" else ""
        return Row(
            offer=offer,
            verdict=verdict if usable is not None else "?",
            needed_gib=needed / memory.GIB,
            usable_gib=usable,
            setup=setup,
            device=device,
            duration=told,
            basis=rate.basis if rate else f"the GPU {offer.gpu} is not known here",
            limits=limits,
            counted=self.counts.method,
        )

    def _resident(self, peak: memory.Peak) -> float:
        """Bytes of a training without a GPU, as the system counts them."""
        return peak.allocated * HEAP + FILE_BYTES * self.shape.parameters + RUNTIME_GIB * memory.GIB

    @property
    def _shardable(self) -> bool:
        """Whether the trainer may keep the base in parts (`training_image.sharding`)."""
        train = self.spec.train
        whole = train.variant in ("dora", "pissa") or bool(train.modules_to_save)
        return not whole and self.shape.type not in shapes.ENCODERS

    def _plenty(self, usable: float | None) -> bool:
        return usable is not None and usable * memory.GIB > PLENTY * 2 * self.shape.parameters


def every_offer(file: JobFile, region: str | None = None) -> tuple[list[Offer], list[str]]:
    """The machines of all places: backends that are installed, and places that only a price is known for; and what is
    wrong with places that cannot be asked.

    Without ``region`` each place's own from the job or the user's config, else wherever a price is known.
    """
    found = registry.every()
    offers: list[Offer] = []
    complaints: list[str] = []
    for name, backend in found.items():
        if isinstance(backend, registry.Broken):
            complaints.append(f"{name} cannot be loaded: {backend.error}")
            continue
        try:
            offers += backend.create().offers(region or _region_of(file, name))
        except Exception as error:  # a plug-in's may be anything; it is named, and the others go on
            complaints.append(f"{name} gave no offers: {type(error).__name__}: {error}")
    for place in prices.places():
        if place not in found:
            offers += prices.offers(place, region or _region_of(file, place))
    return offers, complaints


def order(rows: Iterable[Row], spot: bool = False) -> list[Row]:
    """Priced places by expected total (``spot``: on spot), then unknown prices, then places without a bill.

    A price of more than a year ago is not ranked first while a newer one is there.
    """

    def rank(row: Row) -> tuple[int, bool, float, str, str]:
        total = row.dollars(spot)
        block = 2 if row.free else 1 if total is None else 0
        dollars = total[1] if total else row.hours[1]
        return block, False if block == 0 else row.verdict == "no", dollars, row.offer.backend, row.offer.machine

    ordered = sorted(rows, key=rank)
    if ordered and ordered[0].dollars(spot) is not None and ordered[0].stale:
        newer = next((row for row in ordered if row.dollars(spot) is not None and not row.stale), ordered[0])
        ordered.remove(newer)
        ordered.insert(0, newer)
    return ordered


def recommend(rows: Sequence[Row], spot: bool = False) -> tuple[Row, str] | None:
    """The row to take, and why; None where nothing fits. An unknown price is never recommended."""
    surest = _surest(rows)
    free = sorted((row for row in surest if row.free), key=lambda row: (row.offer.backend != "local", row.hours[1]))
    priced = [row for row in order(surest, spot) if row.dollars(spot) is not None]
    quick = next((row for row in free if row.hours[1] <= PATIENCE_HOURS), None)
    tight = "" if surest and surest[0].verdict == "fits" else ", though memory is tight"
    if quick is not None:
        instead = f"; the cheapest with a bill is {_name(priced[0])} at {_usd(priced[0], spot)}" if priced else ""
        return quick, f"costs nothing and takes about {_time(quick.hours[1])}{tight}{instead}"
    if priced:
        first = priced[0]
        then = next((row for row in priced if row.offer.backend != first.offer.backend), None)
        other = f"; the next place is {_name(then)} at {_usd(then, spot)}" if then else ""
        return first, f"the cheapest that fits: {_usd(first, spot)} in about {_time(first.hours[1])}{tight}{other}"
    if free:
        return free[0], f"no place with a known price fits; this one takes about {_time(free[0].hours[1])}{tight}"
    return None


def cheapest(rows: Sequence[Row]) -> Row | None:
    """The machine with the smallest bill among those that fit; None where no price of such a one is known."""
    return next((row for row in order(_surest(rows)) if row.total is not None), None)


def document(rows: Sequence[Row], spot: bool = False) -> dict[str, Any]:
    """The document of ``cost --json``; rows in `order`."""
    best = recommend(rows, spot)
    told = best and {"backend": best[0].offer.backend, "machine": best[0].offer.machine, "why": best[1]}
    dates = [row.offer.as_of for row in rows if row.offer.usd_per_hour is not None]
    return {"as_of": max(dates, default=None), "offers": [row.document() for row in rows], "recommended": told}


def _surest(rows: Sequence[Row]) -> list[Row]:
    """The rows that fit; those that fit tightly only where there are no others."""
    usable = [row for row in rows if row.verdict in ("fits", "tight") and row.duration is not None]
    return [row for row in usable if row.verdict == "fits"] or usable


def _region_of(file: JobFile, place: str) -> str | None:
    options = file.job.backends.get(place, {})
    named = options.get("region") or options.get("location")
    return str(named) if named else None


def named(values: Sequence[float] | None) -> dict[str, float] | None:
    """A range with its parts by name."""
    if values is None:
        return None
    return dict(zip(("low", "expected", "high"), (round(value, 6) for value in values), strict=True))


def _name(row: Row) -> str:
    return f"{row.offer.backend} {row.offer.machine}"


def _usd(row: Row, spot: bool) -> str:
    total = row.dollars(spot)
    assert total is not None  # asked for priced rows only
    low, expected, high = total
    return f"{expected:.2f} dollars ({low:.2f} to {high:.2f})" + (" on spot" if spot else "")


def _time(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / memory.GIB


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
