"""What may be searched, and that a budget is kept whatever the trials take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.interface import Handle, State
from launcher import results
from launcher.store import Record, Store
from launcher.sweep.budget import Budget
from launcher.sweep.space import DEFAULT, Choice, Range, parse
from launcher.sweep.study import Live, Options, Sweep, spent
from training_image import progress
from training_image.errors import InputError


def test_dimensions_are_read() -> None:
    assert parse(["train.rank=8, 16,32", "train.learning_rate=1e-4..1e-2", "train.rank=8..16"][:2]) == [
        Choice("train.rank", (8, 16, 32)),
        Range("train.learning_rate", 1e-4, 1e-2, whole=False),
    ]
    assert parse(["train.rank=8..16"])[0] == Range("train.rank", 8, 16, whole=True)
    assert parse(["train.learning_rate=1e-4..1e-2"])[0].log
    assert not parse(["train.dropout=0..0.5"])[0].log
    assert len(parse(DEFAULT)) == len(DEFAULT)


@pytest.mark.parametrize(
    "wrong",
    ["rank=8,16", "data.max_length=64,128", "train.seed=1,2", "train.rank", "train.rank=8", "train.rank=8,8",
     "train.rank=16..8", "train.rank=a..b", "train.rank=8,,16", "=1,2"],
)  # fmt: skip
def test_what_is_no_search_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="--search"):
        parse([wrong])


def test_a_key_stands_once() -> None:
    with pytest.raises(InputError, match="twice"):
        parse(["train.rank=8,16", "train.rank=8..32"])


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse([text])
    except InputError:
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found[0].suggest(study.ask())


@given(
    total=st.floats(60, 1e5),
    at_once=st.integers(1, 5),
    trials=st.integers(1, 20),
    least=st.floats(1, 1e4),
    shares=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1e3)), min_size=40, max_size=40),
)
def test_all_trials_together_keep_the_budget(
    total: float, at_once: int, trials: int, least: float, shares: list[tuple[float, float]]
) -> None:
    """Trials end in the order of their starts, each after some share of its cap; none starts with too little."""
    budget, running, spent, longest, started = Budget(total, at_once, least, least), [], 0.0, 0.0, 0
    for share, expected in shares:
        cap = budget.cap(spent, sum(running), len(running), longest, expected) if started < trials else 0.0
        assert cap is not None
        if cap and len(running) < at_once:
            running.append(cap)
            started += 1
            assert cap >= max(least, expected)
            assert spent + sum(running) <= total * (1 + 1e-9)
        elif running:
            took = share * running.pop(0)
            spent, longest = spent + took, max(longest, took)
    assert spent + sum(running) <= total * (1 + 1e-9)


def test_without_a_budget_there_is_no_cap() -> None:
    assert Budget(None, 2, 30, 30).cap(1e9, 1e9, 1, 1e9) is None


class Heard:
    """A watch that is told all lines in one look, and a place that is told to cancel."""

    def __init__(self, live: Live, lines: Sequence[str]) -> None:
        self.record = Record("a", "c", 0, "x", "", "", None, "", handle=Handle(backend="x", job_name="a"))
        self.backend, self.live, self.lines, self.cancelled = self, live, lines, 0

    def look(self) -> float:
        for line in self.lines:
            self.live.line(line, progress.parse(line))
        return 0.1

    def cancel(self, handle: Handle) -> None:
        self.cancelled += 1


FIRST = ("[train] step=5 steps=10 train/loss=1", "[train] step=5 validation/macro_f1=0.1")
LAST = ("[train] step=10 steps=10 train/loss=1", "[train] step=10 validation/macro_f1=0.1")


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
@pytest.mark.parametrize(("lines", "cancelled"), [(FIRST, 1), ((*FIRST, *LAST), 0), (LAST, 0)])
def test_a_bad_trial_is_stopped_but_not_once_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, lines: Sequence[str], cancelled: int
) -> None:
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path))
    options = Options(trials=9, at_once=1, sampler="random", pruner=pruner, seconds=None, usd=None, seed=1)
    store, none = Store(tmp_path), Budget(None, 1, 0.0, 0.0)
    sweep = Sweep("s", [], options, lambda settings: None, "macro_f1", True, store, print, none, none)
    study = sweep._open()
    for _ in range(4):
        good = study.ask()
        for step in (1, 2):
            good.report(0.9, step)
            good.should_prune()  # Hyperband notes what was reported
        study.tell(good, 0.9)
    live = Live(study.ask(), "macro_f1")
    live.watch = heard = Heard(live, lines)
    sweep.live.append(live)
    sweep._look(study, live)
    assert heard.cancelled == cancelled
    (tmp_path / "result.json").write_text('{"training": {"best_value": 0.1}}')
    monkeypatch.setattr(results, "collect", lambda *_: tmp_path)
    state = State.CANCELLED if cancelled else State.SUCCEEDED
    sweep._settle(study, live, dataclasses.replace(heard.record, submitted=1.0, ended=61.0, state=state), heard)
    assert study.trials[-1].state.name == ("PRUNED" if cancelled else "COMPLETE")
    store.close()


def test_a_job_of_two_trials_at_once_is_paid_for_once(tmp_path: Path) -> None:
    """Both were started with the same settings before either had ended."""
    study, store = optuna.create_study(), Store(tmp_path)
    options = Options(trials=2, at_once=2, sampler="random", pruner="none", seconds=None, usd=9.0, seed=1)
    budgets = Budget(None, 2, 30.0, 0.0), Budget(9.0, 2, 0.5, 0.5)
    sweep = Sweep("s", [], options, lambda settings: None, "macro_f1", True, store, print, *budgets)
    trials = [study.ask(), study.ask()]
    for trial in trials:
        trial.set_user_attr("job", "a")
    ended = Record("a", "c", 0, "x", "", "", None, "", submitted=1.0, ended=61.0, state=State.CANCELLED, actual_usd=0.9)
    for trial in trials:
        sweep._settle(study, Live(trial, "macro_f1"), ended, None)
    assert (spent(study, "seconds"), spent(study, "usd")) == (60.0, 0.9)
    store.close()
