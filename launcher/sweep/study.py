"""A sweep: trials side by side as jobs of a place, told to Optuna, stopped early, gone on with after a kill.

All that must outlive the launcher stands in Optuna's own database and in the record of jobs. A trial's job follows from
its settings, so a sweep that is started again finds the jobs of its open trials by planning them again, and a trial
with the settings of an earlier one costs nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.home import data_home
from backends.interface import BackendError, Reason, State, Status
from launcher import lifecycle, results
from launcher.cost.estimate import expected_usd
from launcher.job import JobFile
from launcher.store import Record, Store
from launcher.sweep.budget import LEAST, Budget
from launcher.sweep.space import Dimension, Value
from launcher.watch import Watch
from training_image.errors import InputError

if TYPE_CHECKING:
    import optuna

Say = Callable[[str], None]
MakeFile = Callable[[dict[str, Value]], JobFile]
"""The trial's job: the user's with these settings, on training and validation rows alone."""
Caps = tuple[float | None, float | None]
"""The most seconds and the most dollars of a job; None: no limit."""
MOST_FAILURES = 3
"""Trials that fail in a row, none having succeeded, before the sweep gives up."""


@dataclass(frozen=True)
class Options:
    """How a sweep goes about it."""

    trials: int
    at_once: int
    sampler: str
    pruner: str
    seconds: float | None
    """Total running time of all jobs; None: no limit."""
    usd: float | None
    """Total dollars of all jobs; None: no limit."""
    seed: int


@dataclass
class Live:
    """A trial whose job runs. Reads the job's lines for the validations."""

    trial: optuna.Trial
    metric: str
    watch: Watch | None = None
    caps: Caps = (None, None)
    validations: int = 0
    steps: float = math.inf
    """As the job's lines tell."""
    stop: bool = False
    stopped: bool = False

    def line(self, text: str, parsed: tuple[str, dict[str, float | str]] | None) -> None:
        """Report a validation; what was reported before a kill is passed over by Optuna."""
        told = {name: value for name, value in (parsed[1] if parsed else {}).items() if isinstance(value, float)}
        value = told.get(f"validation/{self.metric}")
        if value is not None:
            self.validations += 1
            if self.validations not in self.trial.study.trials[self.trial.number].intermediate_values:
                self.trial.report(value, self.validations)
            # Asked after the last one too: Hyperband then notes what others are compared with.
            self.stop = self.trial.should_prune() or self.stop
        self.steps = told.get("steps", self.steps)
        if told.get("step", 0.0) >= self.steps:
            self.stop = False  # it is trained: nothing is left to save, and its value is as good as any

    def status(self, status: Status) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""


@dataclass
class Sweep:
    """One sweep, under way."""

    name: str
    space: Sequence[Dimension]
    options: Options
    make_file: MakeFile
    metric: str
    higher_is_better: bool
    store: Store
    say: Say
    hours: Budget
    """In seconds."""
    dollars: Budget
    live: list[Live] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where Optuna's database and the trials' results lie."""
        return data_home() / "sweeps" / self.name

    def run(self) -> optuna.Study:
        """Bring the trials to their end. Raises InputError or BackendError for what makes all of them fail."""
        study = self._open()
        for frozen in study.trials:
            if not frozen.state.is_finished():
                self._start(study, _again(study, frozen.number), dict(frozen.params))
        while True:
            while len(self.live) < self.options.at_once and self._more(study):
                trial = study.ask()
                self._start(study, trial, {each.key: each.suggest(trial) for each in self.space})
            if not self.live:
                return self._ended(study)
            time.sleep(min(self._look(study, each) for each in list(self.live)))

    def left(self, study: optuna.Study) -> Caps:
        """What the budgets leave to the training of the best; one cent is too little, and is refused at its start."""
        return self.hours.left(spent(study, "seconds"), LEAST), self.dollars.left(spent(study, "usd"), 0.01)

    def _ended(self, study: optuna.Study) -> optuna.Study:
        if len(study.trials) < self.options.trials:
            self.say(
                f"{len(study.trials)} of {self.options.trials} trials: the budget has no room for another "
                "and the training of the best"
            )
        return study

    def _open(self) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{self.folder / 'study.db'}"
        pruners: dict[str, Any] = {
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=3, n_min_trials=3),
            "hyperband": optuna.pruners.HyperbandPruner,
            "none": optuna.pruners.NopPruner,
        }
        direction = (
            optuna.study.StudyDirection.MAXIMIZE if self.higher_is_better else optuna.study.StudyDirection.MINIMIZE
        )
        study = optuna.create_study(
            storage=storage,
            study_name=self.name,
            pruner=pruners[self.options.pruner](),
            direction=direction,
            load_if_exists=True,
        )
        # A sampler that began with the same seed again would propose the same settings again.
        seed = self.options.seed + len(study.trials)
        study.sampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            if self.options.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
        return study

    def _more(self, study: optuna.Study) -> bool:
        return len(study.trials) < self.options.trials and 0.0 not in self._caps(study)

    def _caps(self, study: optuna.Study, usd: float = 0.0) -> Caps:
        """The most that the next trial may take; 0 where there is too little. ``usd``: what it is expected to cost."""

        def cap(budget: Budget, place: int, name: str, expected: float) -> float | None:
            longest = max((float(trial.user_attrs.get(name) or 0.0) for trial in study.trials), default=0.0)
            promised = sum(each.caps[place] or 0.0 for each in self.live)
            return budget.cap(spent(study, name), promised, len(self.live), longest, expected)

        return cap(self.hours, 0, "seconds", 0.0), cap(self.dollars, 1, "usd", usd)

    def _start(self, study: optuna.Study, trial: optuna.Trial, settings: dict[str, Value]) -> None:
        """Start the trial's job, or find the one there is; an ended one is told at once."""
        if settings.keys() != {each.key for each in self.space}:  # killed while it was asked
            settings = {each.key: each.suggest(trial) for each in self.space}
        planned = lifecycle.make_plan(self.make_file(settings), self.store)
        usd = expected_usd(planned.estimate) or 0.0
        caps: Caps = tuple(trial.user_attrs.get("caps") or self._caps(study, usd))
        live = Live(trial, self.metric, caps=caps)
        done = [each for each in planned.earlier if each.state in (State.SUCCEEDED, State.CANCELLED)]
        if done and planned.live is None:
            self._settle(study, live, done[-1], planned.backend)
            return
        if 0.0 in caps:
            self._pass_over(study, trial, usd)
            return
        trial.set_user_attr("caps", caps)
        planned = lifecycle.make_plan(limited(self.make_file(settings), caps), self.store)
        target = self.folder / "trials" / planned.plan.job_name
        record = lifecycle.launch(planned, self.store, target, self.say)
        trial.set_user_attr("job", record.job)
        # From the first line on, so that validations are counted alike before and after a kill.
        live.watch = Watch(dataclasses.replace(record, cursor=None), self.store, planned.backend, live)
        self.live.append(live)
        self.say(f"trial {trial.number}: {record.job} with {_told(settings)}")

    def _pass_over(self, study: optuna.Study, trial: optuna.Trial, usd: float) -> None:
        """Leave out a trial that the budget has no room for; a later one may be cheaper."""
        from optuna.trial import TrialState

        message = f"not run: expected to cost {usd:.2f} dollars, more than the budget has room for"
        trial.set_user_attr("message", message)
        study.tell(trial, state=TrialState.FAIL)
        self.say(f"trial {trial.number} is {message}")

    def _look(self, study: optuna.Study, live: Live) -> float:
        """Look at a running trial; gives the seconds to the next look."""
        assert live.watch is not None
        pause = live.watch.look()
        record, backend = live.watch.record, live.watch.backend
        if live.stop and not live.stopped and pause is not None and record.handle is not None:
            self.say(f"trial {live.trial.number} is stopped: others were better after as many validations")
            backend.cancel(record.handle)
            live.stopped = True
        if pause is not None:
            return pause
        self.live.remove(live)
        self._settle(study, live, record, backend)
        return 0.0

    def _settle(self, study: optuna.Study, live: Live, record: Record, backend: Any) -> None:
        """Tell Optuna how the trial's job ended."""
        from optuna.trial import TrialState

        trial = live.trial
        ran = record.billable_seconds or (record.ended or time.time()) - (record.submitted or record.created)
        trial.set_user_attr("job", record.job)
        # The job of several trials is paid for by the first that is settled.
        others = [each.user_attrs for each in study.trials if each.number != trial.number]
        reused = any(each.get("job") == record.job and "seconds" in each for each in others)
        trial.set_user_attr("seconds", 0.0 if reused else round(ran, 1))
        # What is not known of the bill counts as all that the trial was allowed.
        paid = record.actual_usd if record.actual_usd is not None else live.caps[1]
        trial.set_user_attr("usd", 0.0 if reused else paid)
        value = (
            _value(results.collect(record, self.store, backend, None, self.say))
            if record.state is State.SUCCEEDED
            else None
        )
        if value is not None:
            study.tell(trial, value)
            self.say(f"trial {trial.number}: {self.metric} {value:.4f} on the validation rows")
        elif record.state is State.CANCELLED:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("message", record.message)
            study.tell(trial, state=TrialState.FAIL)
            self._give_up(study, record)

    def _give_up(self, study: optuna.Study, record: Record) -> None:
        """Raise where going on would only cost more."""
        from optuna.trial import TrialState

        ended = [trial.state for trial in study.trials if trial.state.is_finished()]
        hopeless = TrialState.COMPLETE not in ended and len(ended) >= MOST_FAILURES
        if record.reason is Reason.BAD_DATA or hopeless:
            message = f"the trial {record.job} failed ({record.reason or 'UNKNOWN'}): {record.message}"
            raise BackendError(message, hint=f"ftlaunch logs {record.job}", reason=record.reason or Reason.UNKNOWN)


def sweep_name(stem: str, *decisive: object) -> str:
    """``STEM-sweep-xxxxxxxx``: the same for the same job and the same search, so that a repeat goes on with it."""
    text = json.dumps(decisive, sort_keys=True, default=str)
    return f"{stem}-sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def best(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The best trial. Raises InputError where none has come to its end."""
    try:
        return study.best_trial
    except ValueError:
        raise InputError(
            "no trial has come to its end", hint="raise --trials or --max-hours, and run it again"
        ) from None


def _again(study: optuna.Study, number: int) -> optuna.Trial:
    """An open trial of an earlier start, to report to."""
    import optuna

    return optuna.Trial(study, study.trials[number]._trial_id)


def limited(file: JobFile, caps: Caps) -> JobFile:
    """The job with its share of the budgets as its own limits, which the place keeps without us."""
    seconds, usd = caps
    own = file.job.budget
    hours = [each for each in (own.max_hours, seconds and seconds / 3600) if each]
    dollars = [each for each in (own.max_usd, usd) if each]
    limits = {"max_hours": min(hours, default=None), "max_usd": min(dollars, default=None)}
    return dataclasses.replace(file, job=file.job.model_copy(update={"budget": own.model_copy(update=limits)}))


def spent(study: optuna.Study, name: str) -> float:
    """The ``seconds`` or ``usd`` of the ended trials."""
    return float(sum(trial.user_attrs.get(name) or 0.0 for trial in study.trials))


def _value(folder: Path | None) -> float | None:
    """What a trial reached at its best step on the validation rows."""
    if folder is None:
        return None
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    value = (result.get("training") or {}).get("best_value")
    return None if value is None else float(value)


def _told(settings: dict[str, Value]) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
