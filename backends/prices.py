"""What machines cost: the bundled snapshot, prices that were refreshed, and the user's own, each row checked.

One row is one machine of one place in one region. The user's own price (``prices.csv`` in the config folder; one
without a region holds in all of them) goes before a refreshed one (``prices-live.csv`` in the data folder, written by
``ftlaunch prices refresh``), which goes before the bundled one. A row that cannot be right is left out with a complaint
and never ends a command.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from backends import hardware
from backends.home import config_home, data_home
from backends.interface import Offer

Kind = Literal["live", "snapshot", "derived", "user", "free"]
Key = tuple[str, str, str]
"""Place, region (empty where the place has none) and machine."""

BUNDLED = Path(__file__).with_name("prices.csv")
COLUMNS = ("place", "region", "machine", "usd_per_hour", "usd_per_hour_spot", "kind", "as_of", "source")
OLD_DAYS = 30
"""From this age on a price is warned of."""
CHEAPEST, DEAREST = 0.01, 40.0
"""Dollars an hour and GPU outside of which no price is believed (a placeholder of 700 was seen in a catalogue)."""
STALE_DAYS = 365
"""From this age on a price is not ranked first."""
MOST_CHANGE = 3.0
"""A price that moved by more than this factor since the row before it is taken for an error."""


class Price(NamedTuple):
    """One checked row."""

    place: str
    """Name of the backend."""
    region: str
    machine: str
    usd_per_hour: float | None
    """On demand, for the whole machine; None: unknown or not sold."""
    usd_per_hour_spot: float | None
    kind: Kind
    as_of: str
    """ISO 8601 to the precision that is known: a day, a month or a year."""
    source: str
    gpus: int | None = None
    """Of the machine, as a live source tells it; not kept in the files."""

    @property
    def key(self) -> Key:
        """What the row is about."""
        return self.place, self.region, self.machine


class Book(NamedTuple):
    """All prices that are believed, and what was wrong with the others."""

    prices: dict[Key, Price]
    complaints: tuple[str, ...]


def live_path() -> Path:
    """Where refreshed prices are kept."""
    return data_home() / "prices-live.csv"


def user_path() -> Path:
    """Where the user's own prices stand (a contract's, say); columns as `COLUMNS`, kind and source may be left out."""
    return config_home() / "prices.csv"


def load() -> Book:
    """Read the three files. Never raises for what is in them."""
    lists, own = listed(), _read(user_path(), "user")
    anywhere = {(place, machine) for place, region, machine in own.prices if not region}
    others = {key: price for key, price in lists.prices.items() if (key[0], key[2]) not in anywhere}
    return Book(others | own.prices, lists.complaints + own.complaints)


def listed() -> Book:
    """The list prices alone, bundled and refreshed, which a contract of the user's does not change."""
    bundled, live = _read(BUNDLED, None), _read(live_path(), "live")
    return Book(bundled.prices | live.prices, bundled.complaints + live.complaints)


def offers(place: str, region: str | None = None) -> Iterable[Offer]:
    """The machines of a place; without a region those that a price is known for somewhere, with that region.

    In a region without a row for a machine its price is unknown.
    """
    prices = load().prices
    regions = {key[1] for key in prices if key[0] == place}
    if region is None or regions == {""}:
        yield from (_offer(price) for price in prices.values() if price.place == place)
        return
    for machine in hardware.machines().values():
        if machine.place == place:
            unknown = Price(
                place, region, machine.name, None, None, "snapshot", "2026-11", "no price known in this region"
            )
            found = prices.get((place, region, machine.name)) or prices.get((place, "", machine.name), unknown)
            yield _offer(found._replace(region=region))


def places() -> list[str]:
    """The places that a price is known for."""
    return list(dict.fromkeys(key[0] for key in load().prices))


def check(price: Price, before: Price | None) -> str:
    """What is wrong with a row, in words; empty if nothing is. ``before``: the same row of an earlier list."""
    name = f"{price.place} {price.region} {price.machine}".replace("  ", " ")
    machine = hardware.machines().get((price.place, price.machine))
    if machine is None:
        return f"{name}: not among the machines that are known here"
    if age_days(price.as_of) is None:
        return f"{name}: {price.as_of!r} is no date"
    if price.gpus not in (None, machine.gpus):
        return f"{name}: priced for {price.gpus} GPUs, and it has {machine.gpus}"
    for usd in (price.usd_per_hour, price.usd_per_hour_spot):
        if usd is not None and not credible(usd, machine.gpus):
            return f"{name}: {usd:g} dollars an hour cannot be right for {machine.gpus} x {machine.gpu}"
    if price.usd_per_hour_spot is not None and price.usd_per_hour_spot >= (price.usd_per_hour or math.inf):
        return f"{name}: spot is not below on demand"
    if before is not None and price.usd_per_hour is not None and before.usd_per_hour is not None:
        change = price.usd_per_hour / before.usd_per_hour
        if price.kind != "user" and not 1 / MOST_CHANGE <= change <= MOST_CHANGE:
            return f"{name}: {price.usd_per_hour:g} dollars an hour, {change:.1f} times what it was"
    return ""


def credible(usd: float, gpus: int) -> bool:
    """Whether so many dollars an hour can be the price of a machine with so many GPUs; zero and nan cannot."""
    return CHEAPEST * max(1, gpus) <= usd <= DEAREST * max(1, gpus)


def age_days(as_of: str, today: date | None = None) -> int | None:
    """Days since the first day that a date of ISO 8601 can mean (a year alone: since New Year); None for no date."""
    parts = as_of.split("-")
    try:
        if not all(part.isascii() and part.isdigit() for part in parts) or len(parts) > 3:
            return None
        then = date(*(int(part) for part in [*parts, "1", "1"][:3]))
    except ValueError:
        return None
    return ((today or date.today()) - then).days


def write_live(prices: Iterable[Price]) -> None:
    """Replace the refreshed prices, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if value is None else value for value in price[: len(COLUMNS)]] for price in prices)
    path = live_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(text.getvalue(), encoding="utf-8")
    new.replace(path)


def read_live() -> dict[Key, Price]:
    """The refreshed prices alone."""
    return _read(live_path(), "live").prices


def _read(path: Path, kind: str | None) -> Book:
    """The believed rows of a file, and complaints. ``kind``: that of every row, unless the file tells it itself."""
    prices: dict[Key, Price] = {}
    complaints: list[str] = []
    try:
        text = path.read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except FileNotFoundError:
        return Book({}, ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return Book({}, (f"{path} cannot be read: {error}",))
    for number, row in enumerate(rows, 2):
        try:
            price = _parse(row, kind)
        except (ValueError, TypeError, AttributeError) as error:
            complaints.append(f"{path}, line {number}: {error}")
            continue
        wrong = check(price, None)  # a change since the row before was looked at when it came
        if wrong:
            complaints.append(f"{path}, line {number}: {wrong}")
        else:
            prices[price.key] = price
    return Book(prices, tuple(complaints))


def _parse(row: Mapping[str, str | None], kind: str | None) -> Price:
    """Raises ValueError for what is not a price."""
    text = {name: (row.get(name) or "").strip() for name in COLUMNS}
    given = "user" if kind == "user" else text["kind"] or kind
    if given not in get_args(Kind):
        raise ValueError(f"kind is {given!r}")
    usd, spot = _number(text["usd_per_hour"]), _number(text["usd_per_hour_spot"])
    if given == "free" and (usd is not None or spot is not None):
        raise ValueError("free, and a price too")
    return Price(
        text["place"],
        text["region"],
        text["machine"],
        usd,
        spot,
        cast(Kind, given),
        text["as_of"] or (date.today().isoformat() if kind == "user" else ""),
        text["source"] or ("the user's own price" if kind == "user" else ""),
    )


def _number(text: str) -> float | None:
    if not text:
        return None
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no price")
    return number


def _offer(price: Price) -> Offer:
    machine = hardware.machines()[price.place, price.machine]
    return Offer(
        backend=price.place,
        machine=price.machine,
        region=price.region or None,
        gpu=machine.gpu,
        gpu_count=machine.gpus,
        usd_per_hour=price.usd_per_hour,
        usd_per_hour_spot=price.usd_per_hour_spot,
        kind=price.kind,
        as_of=price.as_of,
        source=price.source,
    )
