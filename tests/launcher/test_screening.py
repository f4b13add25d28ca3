"""What a screening says of its models, by numbers made up for each case."""

from __future__ import annotations

import pytest

from launcher.models_table import known_models
from launcher.screening import ranked

WIDE = 0.05


def entry(name: str, **values: float) -> dict:
    """A model's entry in result.json: macro-F1 by evaluation."""
    made = {
        way: {"metrics": {"macro_f1": value}, "ci95": {"macro_f1": [value - WIDE, value + WIDE]}}
        for way, value in values.items()
    }
    return {"name": name, "kind": "decoder", "evaluations": made, "seconds": 1.0}


def told(*entries: dict, enough: float | None = None) -> str:
    result = {"task": {"metric": "macro_f1", "higher_is_better": True}, "screening": list(entries)}
    return ranked(result, enough, {}).text


@pytest.mark.parametrize(
    ("entries", "enough", "words"),
    [
        ([entry("a", zero_shot=0.4, few_shot=0.94)], None, "its few-shot baseline is at 0.94 already"),
        ([entry("a", zero_shot=0.4, few_shot=0.5)], 0.45, "its few-shot baseline is at 0.50 already"),
        ([entry("a", few_shot=0.94), entry("b", probe=0.97)], None, "a's few-shot baseline is at 0.94 already"),
    ],
    ids=["default", "own", "behind a probe"],
)
def test_prompting_that_is_good_enough_is_said_to_be(entries, enough, words):
    assert f"Tuning may not be worth it: {words}" in told(*entries, enough=enough)


@pytest.mark.parametrize(
    ("entries", "enough"),
    [([entry("a", few_shot=0.91)], None), ([entry("b", probe=0.97)], None), ([entry("a", few_shot=0.94)], 0.95)],
    ids=["below", "a probe alone", "own"],
)
def test_prompting_that_is_not_good_enough_is_not(entries, enough):
    assert "worth" not in told(*entries, enough=enough)


def test_the_best_is_named_and_what_is_not_clearly_behind_it():
    text = told(entry("far", few_shot=0.2), entry("near", few_shot=0.65), entry("best", few_shot=0.7))
    assert text.startswith("best is ahead on the validation rows: few-shot macro_f1 0.700 (0.650 to 0.750).")
    assert "Not clearly behind it: near." in text


def test_a_model_of_the_table_has_its_licence_and_any_model_its_size():
    model = known_models()[0]
    entries = [entry(model.id, few_shot=0.7) | {"parameters": 1234}, entry("my/own", few_shot=0.6)]
    result = {"task": {"metric": "macro_f1", "higher_is_better": True}, "screening": entries}
    listed, own = ranked(result, None, {}).models
    assert listed.licence is not None
    assert listed.licence.startswith(model.licence)
    assert (listed.parameters, own.parameters, own.licence) == (1234, None, None)
