"""The comparison as a table for people, as Markdown and as CSV: the same columns everywhere."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from backends import prices
from launcher.cost.compare import Row, recommend
from launcher.cost.places import CREDITS, Range

if TYPE_CHECKING:
    from rich.table import Table

HEADS = ("place", "machine", "GPU", "memory", "training", "overhead", "wait", "on demand", "spot", "price")
LAST = ("overhead_hours", "wait_hours", "usd_per_hour", "kind", "as_of", "source", "tokens", "limits")
SPARE = ("price", "overhead", "wait", "spot", "memory", "GPU", "training")
"""Columns that a narrow terminal does without, the first of them first."""
FOLDED = 27
"""Columns for a machine and its region then; a longer region stands on a second line."""
UNKNOWN = "?"
STYLES = {"fits": "", "tight": "yellow", "no": "dim", "?": "dim"}


def cells(row: Row, left_out: Sequence[str] = ()) -> tuple[str, ...]:
    """A row in words, without the columns left out; where memory is one of them, the price says what does not fit."""
    told = row.duration
    usd = "free" if row.free else _usd(row.total)
    every = (
        row.offer.backend,
        row.offer.machine + (f" ({row.offer.region})" if row.offer.region else ""),
        _gpu(row),
        _memory(row),
        _minutes(told.train) if told else UNKNOWN,
        f"{told.overhead[1] / 60:.0f} min" if told else UNKNOWN,
        f"{told.wait[1] / 60:.0f} min" if told else UNKNOWN,
        "does not fit" if row.verdict == "no" and "memory" in left_out else usd,
        "" if row.free else _usd(row.spot),
        _price(row),
    )
    return tuple(cell for head, cell in zip(HEADS, every, strict=True) if head not in left_out)


def table(rows: Sequence[Row], title: str, left_out: Sequence[str] = ()) -> Table:
    """One block of rows, without the columns left out; where there are any, a machine's name is folded too."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for head in HEADS:
        folded = FOLDED if left_out and head == "machine" else None
        justify: Literal["left", "right"] = "right" if head in HEADS[4:9] else "left"
        if head not in left_out:
            made.add_column(head, no_wrap=folded is None, max_width=folded, justify=justify)
    for row in rows:
        made.add_row(*cells(row, left_out), style=STYLES[row.verdict])
    return made


def markdown(rows: Sequence[Row], spot: bool = False) -> str:
    """All blocks, the recommendation, and what belongs under the table."""
    lines: list[str] = []
    for title, block in blocks(rows, spot):
        lines += [f"### {title}", "", f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}"]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in cells(row))} |" for row in block]
        lines.append("")
    below = [f"- {note}" for note in (*dict.fromkeys(f"tokens {row.counted}" for row in rows), *notes(rows))]
    return "\n".join([*lines, f"**Recommended:** {recommended(rows, spot)}", "", *below])


def as_csv(rows: Sequence[Row]) -> str:
    """One line a machine, numbers as numbers: hours and dollars; empty where unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["backend", "machine", "region", "gpu", "gpu_count", "fit", "needed_gib", "usable_gib"]
    ranges = ["train_hours", "total_usd", "spot_usd"]
    writer.writerow([*names, *(f"{name}_{end}" for name in ranges for end in ("low", "expected", "high")), *LAST])
    for row in rows:
        offer, told = row.offer, row.duration
        train = [seconds / 3600 for seconds in told.train] if told else None
        numbers = [*_three(train), *_three(row.total), *_three(row.spot)]
        around = [told.overhead[1] / 3600, told.wait[1] / 3600] if told else ["", ""]
        usd = "" if offer.usd_per_hour is None else offer.usd_per_hour
        fit = [row.verdict, round(row.needed_gib, 2), row.usable_gib or ""]
        machine = [offer.backend, offer.machine, offer.region or "", offer.gpu or "", offer.gpu_count]
        price = [usd, offer.kind, offer.as_of, offer.source]
        writer.writerow([*machine, *fit, *numbers, *around, *price, row.counted, row.limits])
    return text.getvalue()


def blocks(rows: Sequence[Row], spot: bool = False) -> Iterator[tuple[str, list[Row]]]:
    """The rows by block, each with its title; empty ones are left out."""
    priced = [row for row in rows if not row.free and row.dollars(spot) is not None]
    unknown = [row for row in rows if not row.free and row.dollars(spot) is None]
    free = [row for row in rows if row.free]
    titles = (f"priced, by expected total in dollars{' on spot' * spot}", "price not known", "without a bill")
    for title, block in zip(titles, (priced, unknown, free), strict=True):
        if block:
            yield title, block


def recommended(rows: Sequence[Row], spot: bool = False) -> str:
    """The recommendation in words."""
    best = recommend(rows, spot)
    if best is None and any(row.verdict in ("fits", "tight") for row in rows):
        return "none: no price of these machines is known; one of your own goes into prices.csv beside config.yaml."
    if best is None:
        return "none: the job fits on none of these machines; a smaller model or a lower data.max_length may."
    row, why = best
    return f"{row.offer.backend} {row.offer.machine}, {why}."


def notes(rows: Sequence[Row]) -> Iterator[str]:
    """What belongs under the table: limits of free places, the prices' age, several GPUs, credits."""
    known = [row.offer.as_of for row in rows if row.offer.usd_per_hour is not None]
    if known:
        yield f"prices as of {max(known)}, the oldest of {min(known)}; --csv and --json have the date and kind of each"
    for row in rows:
        if row.limits:
            yield f"{row.offer.backend} {row.offer.machine}: {row.limits}"
    old: dict[str, set[str]] = {}
    for row in rows:
        days = prices.age_days(row.offer.as_of)
        if row.offer.usd_per_hour is not None and days is not None and days > prices.OLD_DAYS:
            old.setdefault(row.offer.backend, set()).add(row.offer.as_of)
    for place, dates in old.items():
        span = min(dates) if len(dates) == 1 else f"{min(dates)} to {max(dates)}"
        yield f"warning: prices of {place} are of {span}, older than {prices.OLD_DAYS} days: ftlaunch prices refresh"
    if any(row.offer.gpu_count > 1 for row in rows):
        yield "Several GPUs share a step's rows: small steps gain little by that, and the whole machine is billed."
    if any(row.setup.shards > 1 for row in rows):
        yield "Where one GPU is too small for the base, it is sharded over the machine's: fit is that of each of them."
    if any(row.offer.backend == "sagemaker" for row in rows):
        yield "SageMaker's spot: the billed seconds shrink by an unknown share (one published run: 70 %)."
    yield from CREDITS


def _three(values: Sequence[float] | None) -> list[float | str]:
    return ["", "", ""] if values is None else [round(value, 6) for value in values]


def _gpu(row: Row) -> str:
    if not row.offer.gpu_count:
        return "none"
    return f"{row.offer.gpu_count} x {row.offer.gpu}" if row.offer.gpu_count > 1 else str(row.offer.gpu)


def _memory(row: Row) -> str:
    if row.usable_gib is None:
        return UNKNOWN
    return f"{row.verdict} {row.needed_gib:.1f}/{row.usable_gib:.0f} GiB"


def _minutes(seconds: Range) -> str:
    low, expected, high = (value / 60 for value in seconds)
    if high >= 600:
        return f"{expected / 60:.1f} h ({low / 60:.1f}-{high / 60:.1f})"
    digits = 1 if expected < 10 else 0
    return f"{expected:.{digits}f} min ({low:.{digits}f}-{high:.{digits}f})"


def _usd(values: Range | None) -> str:
    if values is None:
        return UNKNOWN
    low, expected, high = values
    return f"{expected:.2f} ({low:.2f}-{high:.2f})"


def _price(row: Row) -> str:
    offer = row.offer
    if row.free:
        return "no bill"
    if offer.usd_per_hour is None:
        return UNKNOWN if offer.usd_per_hour_spot is None else f"spot only, {offer.kind} {offer.as_of}"
    return f"{offer.usd_per_hour:.3g}/h {offer.kind} {offer.as_of}"
