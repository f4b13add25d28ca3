"""Metrics equal those of the libraries that the field measures with."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.pipeline import Pipeline

from tests.evaluate.conftest import answered
from training_image.errors import InputError
from training_image.evaluate.classical import classical_pipeline, classify
from training_image.evaluate.metrics import available, evaluate, metrics_of, normalise, token_f1
from training_image.evaluate.outcomes import Outcome

label = st.sampled_from("abcd")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abc"), label), min_size=1, max_size=30))
def test_label_metrics_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    outcomes, metrics = answered(pairs), available()
    true, said = zip(*pairs, strict=True)
    macro = {"average": "macro", "zero_division": 0.0}
    assert evaluate(metrics["accuracy"], outcomes, "abc") == pytest.approx(accuracy_score(true, said))
    for name, theirs in (("macro_f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert evaluate(metrics[name], outcomes, "abc") == pytest.approx(theirs(true, said, **macro)), name


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ("The  Kitchen!", "kitchen", 1.0),
        ("in the kitchen", "kitchen", 2 / 3),
        ("garden", "kitchen", 0.0),
        ("", "", 1.0),
        ("the", "kitchen", 0.0),
        ("red red", "red", 2 / 3),
    ],
)
def test_squad_f1(prediction: str, reference: str, f1: float) -> None:
    assert token_f1(prediction, reference) == pytest.approx(f1)
    assert token_f1(reference, prediction) == pytest.approx(f1)


words = st.lists(
    st.sampled_from(["the", "The", "a", "cat", "cat's", "re-do", "mat.", "(on)", "x", "an", "_"]), max_size=6
)


@settings(max_examples=60)
@given(words, st.lists(words, min_size=1, max_size=3))
def test_squad_metrics_are_those_of_torchmetrics(said: list[str], answers: list[list[str]]) -> None:
    from torchmetrics.functional.text import squad

    prediction, references = " ".join(said), [" ".join(answer) for answer in answers]
    theirs = squad(
        [{"prediction_text": prediction, "id": "1"}],
        [{"answers": {"answer_start": [0] * len(references), "text": references}, "id": "1"}],
    )
    outcomes, ours = (Outcome("1", tuple(references), prediction),), available()
    assert evaluate(ours["exact_match"], outcomes, ()) == pytest.approx(float(theirs["exact_match"]) / 100)
    assert evaluate(ours["f1"], outcomes, ()) == pytest.approx(float(theirs["f1"]) / 100)


@given(st.text(max_size=30))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def test_the_best_reference_counts() -> None:
    outcome = (Outcome("1", ("the shelf", "on the shelf"), "On the shelf."),)
    for name in ("exact_match", "f1"):
        assert evaluate(available()[name], outcome, ()) == 1.0


def test_text_metrics() -> None:
    outcomes = (Outcome("1", ("Tom keeps the lamp in the box.",), "Tom keeps a lamp in the box"),)
    metrics = available()
    # The longest common subsequence has 6 of 7 and 7 words.
    assert evaluate(metrics["rouge_l"], outcomes, ()) == pytest.approx(6 / 7)
    theirs = CHRF().sentence_score(outcomes[0].prediction, [outcomes[0].reference]).score / 100
    assert evaluate(metrics["chrf"], outcomes, ()) == pytest.approx(theirs)


def test_perplexity_is_over_tokens_not_rows() -> None:
    outcomes = (Outcome("1", ("a",), "", nll=1.0, tokens=1), Outcome("2", ("b",), "", nll=9.0, tokens=9 * 2))
    assert evaluate(available()["perplexity"], outcomes, ()) == pytest.approx(math.exp(10 / 19))


def test_an_unknown_or_unfit_metric_is_wrong_input() -> None:
    with pytest.raises(InputError, match="bleurt is unknown"):
        metrics_of("qa", "bleurt")
    with pytest.raises(InputError, match="does not fit"):
        metrics_of("classification", "rouge_l")


def plug_in(folder: Path, body: str) -> None:
    (folder / "words_plug_in.py").write_text(body)
    info = folder / "words_plug_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: words-plug-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ftlaunch.metrics]\nfirst_word = words_plug_in:FirstWord\n")


def test_an_installed_package_adds_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(
        tmp_path,
        "from training_image.evaluate.metrics import PerExample\n"
        "class FirstWord(PerExample):\n"
        "    name = 'first_word'\n"
        "    def score(self, outcome):\n"
        "        return float(outcome.prediction.split()[:1] == outcome.reference.split()[:1])\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    metric = metrics_of("instruction", "first_word")["first_word"]
    assert evaluate(metric, answered([("Tom sat", "Tom ran"), ("Ann", "Bob")]), ()) == 0.5


def test_a_broken_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, "raise RuntimeError('half installed')")
    monkeypatch.delitem(__import__("sys").modules, "words_plug_in", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"first_word.*half installed"):
        available()


def test_the_classical_baseline_is_an_ordinary_pipeline() -> None:
    texts = ["a red apple", "a green frog", "red cherry pie", "the frog jumps", "apple pie", "toad and frog"]
    answers = ["food", "animal"] * 3
    pipeline = classical_pipeline(0)
    assert isinstance(pipeline, Pipeline)
    unseen = ["cherry apple", "jumping toad"]
    wanted = pipeline.fit(texts, answers).predict(unseen).tolist()
    found = classify(texts, answers, unseen)
    assert [max(row, key=row.__getitem__) for row in found] == wanted == ["food", "animal"]
    assert all(sum(row.values()) == pytest.approx(1) for row in found)
