"""``ftlaunch sweep``: hyper-parameters by trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends import registry
from backends.interface import Backend
from launcher import lifecycle, submission
from launcher.cli import common
from launcher.cli.run import attached, launched, shown
from launcher.job import JobFile, load
from launcher.store import Store
from training_image.errors import InputError

if TYPE_CHECKING:
    import optuna

    from launcher.sweep.budget import Budget
    from launcher.sweep.space import Dimension, Value
    from launcher.sweep.study import Options, Sweep


@click.command(
    epilog="Example: `ftlaunch sweep examples/definitions --trials 8 --at-once 2 --search train.rank=8,16,32 "
    "--search train.learning_rate=1e-4..5e-3 --max-usd 10`. The same command goes on with a sweep that was killed."
)
@common.job_file_argument
@common.backend_option
@common.set_option
@click.option("--search", multiple=True, metavar="KEY=VALUES", help="What is varied: KEY=a,b,c or KEY=low..high.")
@click.option("--trials", type=click.IntRange(1), default=12, show_default=True, help="Number of trials.")
@click.option("--at-once", type=click.IntRange(1), default=1, show_default=True, help="Trials that run side by side.")
@click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="Most hours of running, all jobs together.")
@click.option(
    "--max-usd",
    type=click.FloatRange(0, min_open=True),
    help="Most dollars, all jobs together; default: budget.max_usd of the job file.",
)
@click.option("--sampler", type=click.Choice(["tpe", "random"]), default="tpe", show_default=True, help="Of Optuna.")
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    default="median",
    show_default=True,
    help="Of Optuna.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the last job's results; default: ./runs/JOB."
)
@common.json_option
@click.pass_context
def command(
    ctx: click.Context,
    job: str | None,
    backend: str | None,
    sets: tuple[str, ...],
    search: tuple[str, ...],
    trials: int,
    at_once: int,
    max_hours: float | None,
    max_usd: float | None,
    sampler: str,
    pruner: str,
    output: Path | None,
    as_json: bool,
) -> int:
    """Look for the best settings of the job file JOB, then run the job with them.

    Trials are jobs of the place, judged on the validation rows; they are given no test row. The best settings are
    trained again, and that job alone meets the test rows. `optuna-dashboard` can open the database that is named.
    """
    from launcher.sweep.space import DEFAULT, parse
    from launcher.sweep.study import Options, Sweep, best, limited

    space = parse(search or DEFAULT)
    chosen = common.chosen_backend(ctx, backend)

    def make(settings: Mapping[str, Value]) -> JobFile:
        return load(job, (*sets, *(f"{key}={value}" for key, value in settings.items())), chosen)

    file = make({})
    for each in space:  # a wrong key or value is told before anything runs
        for end in each.ends():
            make({each.key: end})
    place = registry.load(file.job.backend).create()
    usd = max_usd or file.job.budget.max_usd
    limit = None if max_hours is None else 3600 * max_hours
    options = Options(trials, at_once, sampler, pruner, limit, usd, file.job.train.seed)
    name, make_trial = _trials(file, place, space, options, make)
    with common.opened_store() as store:
        planned = lifecycle.make_plan(limited(file, (None, usd)), store)
        if planned.bills and max_hours is None and usd is None:
            raise InputError("a sweep with a bill needs a limit", hint="--max-usd 10, over all of its jobs")
        lifecycle.check_data(planned, common.say)
        sweep = Sweep(name, space, options, make_trial, *_metric(file), store, common.say, *_budgets(planned, options))
        common.say(f"{name}; its database: {sweep.folder / 'study.db'}")
        with store.lock(name, lambda: common.say("this sweep is under way elsewhere; waiting for it")):
            try:
                study = sweep.run()
            except KeyboardInterrupt:
                common.say("the running trials go on by themselves; the same command goes on with the sweep")
                return common.INTERRUPTED
        document = _document(study, sweep)
        if not as_json:
            _show(document)
        last = limited(make(best(study).params), sweep.left(study))
        return _train_best(last, store, output, document if as_json else None)


def _budgets(planned: lifecycle.Planned, options: Options) -> tuple[Budget, Budget]:
    """Seconds and dollars. Raises InputError for dollars that do not last for a trial and the training of the best."""
    from launcher.cost.estimate import least_usd
    from launcher.sweep.budget import LEAST, Budget

    usd = least_usd(planned.file, planned.plan, planned.backend, planned.estimate)
    total = options.usd if usd else None  # nothing is paid where there is no bill
    dollars = Budget(total, options.at_once, least=usd, last=usd)
    if dollars.cap(0.0, 0.0, 0, 0.0) == 0.0:
        message = f"{options.usd:g} dollars do not last for a trial and the training of the best, about {usd:.2f} each"
        raise InputError(message, hint="--max-usd, or a cheaper machine: ftlaunch cost compares")
    seconds = options.seconds
    return Budget(seconds, options.at_once, LEAST, (seconds or 0.0) / (options.trials + 1)), dollars


def _trials(
    file: JobFile, place: Backend, space: Sequence[Dimension], options: Options, make: Callable[..., JobFile]
) -> tuple[str, Callable[[dict[str, Value]], JobFile]]:
    """The sweep's name, and how a trial's job is made: from rows among which there is no test row."""
    from launcher.rows import read_splits, with_rows
    from launcher.sweep.study import sweep_name

    splits = read_splits(file)
    if not splits.validation:
        raise InputError("a sweep needs validation rows", hint="data.validation, or a share in data.split.validation")
    train, validation = splits.train, splits.validation
    content = submission.content(file, place, None).digest
    name = sweep_name(file.stem, content, space, options.sampler, options.pruner, options.seed)

    def make_trial(settings: dict[str, Value]) -> JobFile:
        whole = with_rows(make(settings), train, validation)
        evaluate = whole.job.evaluate.model_copy(update={"slices": []})
        trial = whole.job.model_copy(update={"name": f"{file.stem[:48]}-trial", "evaluate": evaluate})
        return dataclasses.replace(whole, job=trial, goal="trial")

    return name, make_trial


def _metric(file: JobFile) -> tuple[str, bool]:
    """The deciding metric, and whether higher is better. Raises InputError where an extra is missing."""
    try:
        import optuna  # noqa: F401  # told here, before a sweep begins

        from training_image.evaluate.metrics import metrics_of
    except ModuleNotFoundError as error:
        raise InputError(f"a sweep needs {error.name}", hint="pip install 'ftlaunch[local,sweep]'") from error
    task = file.job.task
    return task.metric_name, metrics_of(task.type, task.metric_name)[task.metric_name].higher_is_better


def _train_best(file: JobFile, store: Store, output: Path | None, document: dict[str, Any] | None) -> int:
    """Run the job with the best settings, or find it; only here are test rows read."""
    planned = lifecycle.make_plan(file, store)
    if planned.done is not None:
        return shown(planned.done, store, output, document is not None, document)
    record = launched(planned, store, output)
    return attached(record, store, output, document is not None, document)


def _document(study: optuna.Study, sweep: Sweep) -> dict[str, Any]:
    from launcher.sweep.study import best

    trials = [
        {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "params": trial.params,
            **{key: trial.user_attrs.get(key) for key in ("job", "seconds", "usd", "message")},
        }
        for trial in study.trials
    ]
    return {
        "sweep": sweep.name,
        "storage": str(sweep.folder / "study.db"),
        "metric": sweep.metric,
        "trials": trials,
        "best": best(study).number,
    }


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table

    keys = list(dict.fromkeys(key for trial in document["trials"] for key in trial["params"]))
    table = Table("trial", "ended", f"validation {document['metric']}", *keys, "seconds", "job", box=None)
    for trial in document["trials"]:
        value = "" if trial["value"] is None else f"{trial['value']:.4f}"
        params = [
            f"{trial['params'].get(key, ''):.3g}"
            if isinstance(trial["params"].get(key), float)
            else str(trial["params"].get(key, ""))
            for key in keys
        ]
        style = "bold" if trial["number"] == document["best"] else ""
        table.add_row(
            str(trial["number"]),
            trial["state"].lower(),
            value,
            *params,
            str(trial["seconds"] or ""),
            trial["job"] or "",
            style=style,
        )
    common.print_table(table, ("job", "seconds"))
