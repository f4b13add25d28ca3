"""``ftlaunch cost``: what a job would cost, everywhere, before anything is spent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from backends import hardware, prices, registry
from launcher.cli import common
from launcher.cost import compare, history, tables
from launcher.cost.compare import Row
from launcher.cost.speed import Run
from launcher.job import load
from launcher.store import Store
from training_image.errors import InputError


@click.command(
    epilog="Example: `ftlaunch cost examples/definitions --gpu L4 --max-usd 2`. Works offline and without credentials; "
    "`ftlaunch prices refresh` brings today's prices."
)
@common.job_file_argument
@common.backend_option
@common.set_option
@click.option("--gpu", metavar="NAME", help="Only machines with this GPU: T4, L4, A10G, L40S, A100, H100.")
@click.option("--region", metavar="NAME", help="Prices of this region; unknown where none is known.")
@click.option("--max-usd", type=click.FloatRange(min=0, min_open=True), help="Only machines expected to cost no more.")
@click.option("--max-hours", type=click.FloatRange(min=0, min_open=True), help="Only machines expected to be as quick.")
@click.option("--spot", is_flag=True, help="Only machines with a known spot price, by their spot total.")
@common.json_option
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw dollars against hours (svg, png).")
@click.pass_context
def command(
    ctx: click.Context,
    job: str | None,
    backend: str | None,
    sets: tuple[str, ...],
    gpu: str | None,
    region: str | None,
    max_usd: float | None,
    max_hours: float | None,
    spot: bool,
    as_json: bool,
    markdown: bool,
    as_csv: bool,
    plot: Path | None,
) -> None:
    """Compare what the job file JOB costs on all machines of all places: memory, time, dollars, each with its range."""
    if as_json + markdown + as_csv > 1:
        raise InputError("--json, --markdown and --csv exclude each other")
    file = load(job, sets)
    estimator = compare.Estimator(file, _own_runs())
    place = _place(common.chosen_backend(ctx, backend))
    offers, complaints = compare.every_offer(file, region)
    rows = [estimator.row(offer) for offer in offers]
    rows = [row for row in rows if place in (None, row.offer.backend) and (not gpu or _has(row, gpu))]
    if gpu and not rows:
        known = ", ".join(dict.fromkeys(each.gpu for each in hardware.machines().values()))
        raise InputError(f"no place has the GPU {gpu!r}", hint=f"known: {known}")
    rows = compare.order(_within(rows, max_usd, max_hours, spot), spot)
    if plot is not None:
        from launcher.cost.picture import draw

        draw(rows, plot, f"{file.stem}: {estimator.shape.name}")
        common.say(f"drawn: {plot}")
    for complaint in (*prices.load().complaints, *complaints, *_without_prices(region)):
        common.say(f"warning: {complaint}")
    if as_json:
        common.show_json(compare.document(rows, spot))
    elif as_csv:
        click.echo(tables.as_csv(rows), nl=False)
    elif markdown:
        click.echo(tables.markdown(rows, spot))
    else:
        _show(rows, estimator, spot)


def _own_runs() -> list[Run]:
    with contextlib.suppress(InputError):  # where the record of jobs cannot be used, published runs alone
        store = Store()
        try:
            return history.own_runs(store)
        finally:
            store.close()
    return []


def _place(name: str | None) -> str | None:
    known = list(dict.fromkeys([*registry.names(), *prices.places()]))
    if name is not None and name not in known:
        raise InputError(f"there is no place {name!r}", hint=f"known: {', '.join(known)}")
    return name


def _without_prices(region: str | None) -> Iterator[str]:
    """A complaint of a region that no price is known in: a misspelt one, perhaps."""
    known = sorted({known for _, known, _ in prices.load().prices} - {""})
    if region is not None and region not in known:
        yield f"no price is known in a region {region!r}; there are {', '.join(known)}"


def _has(row: Row, gpu: str) -> bool:
    known = hardware.gpu(row.offer.gpu or "")
    return known is not None and hardware.matches(gpu, known.name)


def _within(rows: Sequence[Row], max_usd: float | None, max_hours: float | None, spot: bool) -> list[Row]:
    """The rows within the limits; a price that is not known is not within any, a place without a bill is in all."""
    kept = []
    for row in rows:
        total = row.dollars(spot)
        dear = max_usd is not None and not row.free and (total is None or total[1] > max_usd)
        slow = max_hours is not None and not row.hours[1] <= max_hours
        if not dear and not slow and not (spot and total is None):
            kept.append(row)
    return kept


def _show(rows: Sequence[Row], estimator: compare.Estimator, spot: bool) -> None:
    console = common.wide_console()
    shape, counted = estimator.shape, estimator.counts
    split = counted.splits
    console.print(
        f"{estimator.file.stem}: {shape.name}, {shape.parameters / 1e9:.2f}B weights ({shape.origin}), "
        f"{split['train'].rows} training rows of {split['train'].tokens / max(1, split['train'].rows):.0f} tokens, "
        f"{estimator.work().steps} steps; {counted.method}.",
        markup=False,
    )
    common.print_fitting(
        console,
        lambda left_out: [tables.table(block, title, left_out) for title, block in tables.blocks(rows, spot)],
        tables.SPARE,
        "--csv and --json have all",
    )
    if not rows:
        console.print("no machine is within these limits")
        return
    console.print(f"\nrecommended: {tables.recommended(rows, spot)}\n", markup=False)
    for note in tables.notes(rows):
        console.print(note, style="yellow" if note.startswith("warning") else "dim", markup=False)
    if any(row.duration for row in rows):
        console.print("Ranges are meant to hold in nine of ten cases; a quota or missing capacity shows in none.")
