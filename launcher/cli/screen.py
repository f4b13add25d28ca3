"""``ftlaunch screen``: which base model?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends.interface import State
from launcher import lifecycle, results
from launcher.cli import common, complete
from launcher.cli.run import ask, launched
from launcher.job import JobFile, load
from launcher.store import Record, Store
from training_image.errors import InputError

if TYPE_CHECKING:
    from launcher.price_to_tune import Tuning
    from launcher.screening import Screened


@click.command(
    epilog="Example: `ftlaunch screen examples/definitions --models "
    "HuggingFaceTB/SmolLM2-135M-Instruct,Qwen/Qwen2.5-0.5B-Instruct`, or `--domain medical`"
)
@common.job_file_argument
@click.option("--models", metavar="A,B,C", default="", help="Base models: hub ids or folders, with commas between.")
@click.option(
    "--domain",
    metavar="NAME",
    shell_complete=complete.domains,
    help="Take those of a domain from the table of `ftlaunch models`.",
)
@common.backend_option
@common.set_option
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the results; default: ./runs/JOB.")
@common.json_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask before something is paid for.")
@click.pass_context
def command(
    ctx: click.Context,
    job: str | None,
    models: str,
    domain: str | None,
    backend: str | None,
    sets: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    yes: bool,
) -> int:
    """Measure several base models on the validation rows of the job file JOB, before any tuning, in one job.

    Decoders by zero-shot and few-shot, encoders by a linear probe; bits per character tell how near a model is to the
    text. No test row is used. Without --models and --domain only the job's own model is measured.
    """
    from launcher import screening
    from launcher.cost.compare import every_offer
    from launcher.price_to_tune import price_to_tune

    file = load(job, sets, common.chosen_backend(ctx, backend))
    asked = _prepared(file, _named(models, domain, file))
    with common.opened_store() as store:
        record = _finished(asked, store, output, yes)
        if record is None:
            return common.INTERRUPTED
        if record.state is not State.SUCCEEDED:
            common.say(f"error: {record.job} is {record.state} ({record.reason or 'UNKNOWN'}): {record.message}")
            return common.code_of(record)
        folder = results.collect(record, store, common.backend_of(record), output, common.say)
        assert folder is not None  # it succeeded
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        offers, _ = every_offer(file)
        prices = {
            name: price_to_tune(load(job, (*sets, f"model.id={name}"), file.job.backend), store, offers)
            for name in asked.candidates
        }
    screened = screening.ranked(result, file.job.evaluate.enough, prices)
    if as_json:
        common.show_json(screened.document() | {"job": record.document(), "output": str(folder)})
    else:
        _show(screened)
        click.echo(f"results: {folder}")
    return 0 if any(model.value is not None for model in screened.models) else common.FAILED


def _named(models: str, domain: str | None, file: JobFile) -> list[str]:
    """Hub ids and absolute folders, each once."""
    from launcher.models_table import known_models

    named = [name.strip() for name in models.split(",") if name.strip()]
    if domain is not None:
        named += [model.id for model in known_models(domain)]
    found = []
    for name in named or [file.base_model]:
        folder = Path(name).expanduser()
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise InputError(f"{name} holds no config.json, so it is no transformers checkpoint")
        if not folder.is_dir() and name.startswith((".", "/", "~")):
            raise InputError(f"--models: there is no folder {name}")
        found.append(str(folder.absolute()) if folder.is_dir() else name)
    return list(dict.fromkeys(found))


def _prepared(file: JobFile, models: list[str]) -> JobFile:
    """The screening as a job: training and validation rows, no test row."""
    from launcher.rows import read_splits, with_rows

    splits = read_splits(file)
    if not splits.validation:
        raise InputError("a screening needs validation rows", hint="data.validation, or data.split.validation")
    made = with_rows(file, splits.train, splits.validation)
    evaluate = made.job.evaluate.model_copy(update={"slices": []})
    job = made.job.model_copy(update={"name": f"{file.stem[:46]}-screen", "evaluate": evaluate})
    return dataclasses.replace(made, job=job, goal="screen", candidates=tuple(models))


def _finished(file: JobFile, store: Store, output: Path | None, yes: bool) -> Record | None:
    """The screening at its end: an earlier one of the same content, or one that is run now; None if the user left."""
    from launcher.cli.follow import follow

    planned = lifecycle.make_plan(file, store)
    done = planned.done
    failed = [] if done is None else _failed(done)
    if done is not None and len(failed) < len(file.candidates):
        common.say(f"measured before: {done.job}")
        if failed:
            common.say(f"what could not be measured then is tried anew where it is named alone: --models {failed[0]}")
        return done
    ask(planned, yes)
    return follow(launched(planned, store, output), store)


def _failed(record: Record) -> list[str]:
    """The models that an ended screening could not measure; none where its results are not here."""
    if record.output is None:
        return []
    with contextlib.suppress(OSError, ValueError, KeyError):
        result = json.loads(Path(record.output, "result.json").read_text(encoding="utf-8"))
        return [str(entry["name"]) for entry in result["screening"] if entry.get("error")]
    return []


def _show(screened: Screened) -> None:
    from rich.table import Table

    from launcher.cli.models import size
    from launcher.report.page import number

    columns = ("", "model", "by", screened.metric, "95 % interval", "bits/character", "size", "licence")
    table = Table(*columns, "to tune here", "cheapest with a bill", box=None)
    for place, each in enumerate(screened.models, 1):
        between = "" if each.ci95 is None else f"{number(each.ci95[0])} to {number(each.ci95[1])}"
        told: list[Any] = [
            each.best_by or each.error or "",
            number(each.value),
            between,
            number(each.bits_per_character),
        ]
        told += [size(each.parameters), each.licence or "-", _price(each.price.here), _price(each.price.cheapest, True)]
        table.add_row(str(place), each.name, *told)
    common.print_table(table, ("size", "licence", "bits/character", "to tune here", "95 % interval"))
    click.echo(screened.text)


def _price(tuning: Tuning | None, named: bool = False) -> str:
    """In words, with the place where that is not the job's own."""
    if tuning is None or tuning.usd is None or tuning.hours is None:
        return "?"
    dollars = f"${tuning.usd['expected']:.2f} ({tuning.usd['low']:.2f}-{tuning.usd['high']:.2f})"
    hours = tuning.hours["expected"]
    time = f"{60 * hours:.0f} min" if hours < 2 else f"{hours:.1f} h"
    return f"{dollars if tuning.usd['high'] else 'no bill'}, {time}" + (
        f", {tuning.backend} {tuning.machine}" if named else ""
    )
