"""What may be searched, and that a budget is kept whatever the trials take."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.interface import State
from launcher.store import Record, Store
from launcher.sweep.budget import Budget
from launcher.sweep.space import DEFAULT, Choice, Range, parse
from launcher.sweep.study import Live, Options, Sweep, spent
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
