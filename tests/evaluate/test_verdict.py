"""The verdict says what the paired test says, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate.conftest import answered, evaluation, spec_of
from training_image.evaluate.bootstrap import differing, interval, paired_difference
from training_image.evaluate.guards import guards
from training_image.evaluate.metrics import available, evaluate
from training_image.evaluate.outcomes import Evaluation
from training_image.evaluate.slices import slices
from training_image.evaluate.verdict import not_needed, verdict

pairs = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from("ab")), min_size=5, max_size=40
)
FEW = settings(max_examples=25)


def judged(name: str, right: list[bool], source: list[str] | None = None, group: list[int] | None = None) -> Evaluation:
    """An evaluation that is right where ``right`` says so."""
    rows = [("a", "a" if good else "b") for good in right]
    columns = {"source": source, "group": group}
    fields = {column: values for column, values in columns.items() if values is not None}
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


@FEW
@given(pairs, st.integers(1, 5), st.sampled_from(["accuracy", "macro_f1"]))
def test_rows_of_a_group_are_no_more_evidence_than_one(rows: list[tuple[str, str, str]], size: int, name: str) -> None:
    metric, group = available()[name], [place for place in range(len(rows)) for _ in range(size)]
    many = [row for row in rows for _ in range(size)]
    one, two = answered([(t, x) for t, x, _ in rows]), answered([(t, y) for t, _, y in rows])
    ones = answered([(t, x) for t, x, _ in many], group=group)
    twos = answered([(t, y) for t, _, y in many], group=group)
    assert interval(metric, ones, "ab", resamples=200) == pytest.approx(interval(metric, one, "ab", resamples=200))
    there, bounds = paired_difference(metric, ones, twos, "ab", resamples=200)
    alone, wanted = paired_difference(metric, one, two, "ab", resamples=200)
    assert (there, *bounds) == pytest.approx((alone, *wanted))
    assert differing(metric, ones, twos, "ab") == differing(metric, one, two, "ab")


def test_a_gain_in_few_groups_is_not_clear() -> None:
    group = [row // 20 for row in range(100)]
    made = {
        "zero_shot": judged("zero_shot", [False] * 100, group=group),
        "tuned": judged("tuned", [True] * 100, group=group),
    }
    found = verdict(made, spec_of())
    assert found.outcome == "inconclusive"
    assert "100 test examples in 5 groups); only 5 groups differ" in found.text
    assert made["tuned"].as_json()["groups"] == 5
    alone = {name: judged(name, [name == "tuned"] * 20, group=[0] * 20) for name in made}
    assert "no interval, 20 test examples in one group)" in verdict(alone, spec_of()).text


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
    made["classical"] = judged("classical", [i < 78 for i in range(100)])
    text = verdict(made, spec_of()).text
    assert "0.780, at a small part of the cost: no clear difference to the tuned model" in text


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


@pytest.mark.parametrize("n", [20, 40, 60, 80, 100])
def test_a_mistake_does_not_make_a_baseline_good_enough(n: int) -> None:
    for wrong in range(1, 4):
        found = judged("few_shot", [i >= wrong for i in range(n)])
        none = judged("few_shot", [True] * n)
        enough = none.ci95["accuracy"][0] + 1e-6
        assert not_needed({"few_shot": found}, spec_of(enough=enough)) is None
    assert not_needed({"few_shot": judged("few_shot", [i > 0 for i in range(200)])}, spec_of(enough=0.92)) is not None


def curve(train: list[float], validation: dict[int, float] | None = None, norm: float = 1.0) -> list[dict[str, float]]:
    lines: list[dict[str, float]] = [
        {"step": i, "train/loss": loss, "train/grad_norm": norm} for i, loss in enumerate(train, 1)
    ]
    return lines + [{"step": step, "validation/loss": loss} for step, loss in (validation or {}).items()]


@pytest.mark.parametrize(
    ("history", "codes"),
    [
        (curve([2.0 - i / 20 for i in range(30)]), []),
        (curve([2.0], norm=float("inf")) + curve([2.0] * 20)[1:], ["learning_rate_too_low"]),  # fp16 skips its first
        (curve([1.0] * 10 + [4.0] * 10), ["learning_rate_too_high"]),
        (curve([2.0] * 20), ["learning_rate_too_low"]),
        (curve([3.4] * 10 + [4.8] * 10), []),
        (curve([2.0] * 20, norm=0.0), ["dead_adapter"]),
        (curve([2.0 - i / 20 for i in range(30)], {10: 1.0, 20: 1.2, 30: 1.5}), ["overfitting"]),
    ],
)
def test_guards_read_the_curves(history: list[dict[str, float]], codes: list[str]) -> None:
    assert [guard["code"] for guard in guards(history)] == codes
