"""The verdict says what the paired test says, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate.conftest import answered, evaluation, spec_of
from training_image.evaluate.bootstrap import interval, paired_difference
from training_image.evaluate.guards import guards
from training_image.evaluate.metrics import available, evaluate
from training_image.evaluate.outcomes import Evaluation
from training_image.evaluate.slices import slices
from training_image.evaluate.verdict import not_needed, verdict

pairs = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from("ab")), min_size=5, max_size=40
)
FEW = settings(max_examples=25, deadline=None)


def judged(name: str, right: list[bool], source: list[str] | None = None) -> Evaluation:
    """An evaluation that is right where ``right`` says so."""
    rows = [("a", "a" if good else "b") for good in right]
    fields = {} if source is None else {"source": source}
    outcomes = answered(rows, **fields)
    found = evaluation(name, outcomes, sum(right) / len(right))
    bounds = interval(available()["accuracy"], outcomes, ("a", "b"), resamples=500)
    return Evaluation(name, outcomes, found.metrics, {"accuracy": bounds}, 0.0, [], ["a", "b"])


@FEW
@given(pairs, st.sampled_from(["accuracy", "macro_f1"]))
def test_swapping_the_two_flips_the_sign(rows: list[tuple[str, str, str]], name: str) -> None:
    metric = available()[name]
    one, two = answered([(t, x) for t, x, _ in rows]), answered([(t, y) for t, _, y in rows])
    there, (low, high) = paired_difference(metric, one, two, "ab", resamples=200)
    back, (least, most) = paired_difference(metric, two, one, "ab", resamples=200)
    assert there == pytest.approx(-back)
    assert (low, high) == pytest.approx((-most, -least))
    assert low - 1e-9 <= high


@FEW
@given(pairs)
def test_an_interval_is_seeded_and_holds_its_value(rows: list[tuple[str, str, str]]) -> None:
    metric, outcomes = available()["accuracy"], answered([(t, x) for t, x, _ in rows])
    low, high = interval(metric, outcomes, "ab", resamples=300, seed=3)
    assert (low, high) == interval(metric, outcomes, "ab", resamples=300, seed=3)
    assert low <= evaluate(metric, outcomes, "ab") <= high


def test_all_right_is_not_certainty() -> None:
    low, high = interval(available()["accuracy"], answered([("a", "a")] * 20), "ab")
    assert high == 1.0
    assert low == pytest.approx(0.025 ** (1 / 20))


def test_other_examples_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same examples"):
        paired_difference(available()["accuracy"], answered([("a", "a")] * 3), answered([("a", "a")] * 2), "ab")


@pytest.mark.parametrize(
    ("before", "after", "outcome", "word"),
    [
        (20, 80, "improved", "helped"),
        (80, 20, "degraded", "worse"),
        (50, 50, "inconclusive", "No clear"),
        (97, 100, "inconclusive", "only 3 examples differ"),
    ],
)
def test_outcomes(before: int, after: int, outcome: str, word: str) -> None:
    made = {
        "zero_shot": judged("zero_shot", [i < before for i in range(100)]),
        "tuned": judged("tuned", [i < after for i in range(100)]),
    }
    found = verdict(made, spec_of())
    assert (found.outcome, found.baseline) == (outcome, "zero_shot")
    assert word in found.text
    assert found.difference == pytest.approx((after - before) / 100)


def test_the_better_baseline_is_the_one_to_beat() -> None:
    made = {
        "zero_shot": judged("zero_shot", [i < 10 for i in range(100)]),
        "few_shot": judged("few_shot", [i < 90 for i in range(100)]),
        "tuned": judged("tuned", [i < 60 for i in range(100)]),
    }
    found = verdict(made, spec_of())
    assert (found.outcome, found.baseline) == ("degraded", "few_shot")


def test_a_classical_baseline_as_good_is_said() -> None:
    right = [i < 80 for i in range(100)]
    made = {
        "zero_shot": judged("zero_shot", [i < 20 for i in range(100)]),
        "classical": judged("classical", right),
        "tuned": judged("tuned", right),
    }
    assert "as good as the tuned model" in verdict(made, spec_of()).text


def test_a_group_that_got_worse_is_named() -> None:
    source = ["radio" if i < 30 else "book" for i in range(150)]
    made = {
        "zero_shot": judged("zero_shot", [i < 30 for i in range(150)], source),
        "tuned": judged("tuned", [i >= 30 for i in range(150)], source),
    }
    spec = spec_of(slices=["source"])
    found = verdict(made, spec)
    assert found.outcome == "improved"
    assert [group["value"] for group in found.harmed] == ["radio"]
    assert "source = radio got worse" in found.text
    entry = slices(made, spec)["source"]["radio"]
    assert entry["n"] == 30
    assert entry["tuned"]["metrics"]["accuracy"] == 0.0
    assert entry["tuned"]["ci95"]["accuracy"][1] < 0.2


def test_a_good_enough_baseline_ends_the_matter() -> None:
    good = {"few_shot": judged("few_shot", [True] * 100)}
    found = not_needed(good, spec_of(enough=0.92))
    assert found is not None
    assert (found.outcome, found.baseline, found.difference) == ("not_needed", "few_shot", None)
    # All right, but of ten examples only: the lower bound is 0.69.
    assert not_needed({"few_shot": judged("few_shot", [True] * 10)}, spec_of(enough=0.92)) is None
    assert not_needed(good, spec_of(enough=None)) is None


def curve(train: list[float], validation: dict[int, float] | None = None, norm: float = 1.0) -> list[dict[str, float]]:
    lines: list[dict[str, float]] = [
        {"step": i, "train/loss": loss, "train/grad_norm": norm} for i, loss in enumerate(train, 1)
    ]
    return lines + [{"step": step, "validation/loss": loss} for step, loss in (validation or {}).items()]


@pytest.mark.parametrize(
    ("history", "codes"),
    [
        (curve([2.0 - i / 20 for i in range(30)]), []),
        (curve([2.0, float("nan")]), ["diverged"]),
        (curve([1.0] * 10 + [4.0] * 10), ["learning_rate_too_high"]),
        (curve([2.0] * 20), ["learning_rate_too_low"]),
        (curve([2.0] * 20, norm=0.0), ["dead_adapter"]),
        (curve([2.0 - i / 20 for i in range(30)], {10: 1.0, 20: 1.2, 30: 1.5}), ["overfitting"]),
    ],
)
def test_guards_read_the_curves(history: list[dict[str, float]], codes: list[str]) -> None:
    assert [guard["code"] for guard in guards(history)] == codes
