"""``check``: planted faults are found, and clean data raises none."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from chat_families import family, tokenizer
from specs import clean_rows, make_spec, splits, write

from training_image.data.check import check
from training_image.data.drift import label_drift, text_drift
from training_image.data.labels import suspects
from training_image.data.load import collect


@pytest.fixture(scope="module")
def tok():
    return family("chatml")


def codes(report, level=None):
    return {finding.code for finding in report.findings if level in (None, finding.level)}


def found(report, code):
    (finding,) = [finding for finding in report.findings if finding.code == code]
    return finding


def run(folder, tok, **kwargs):
    return check(make_spec(test="test.jsonl", split={"validation": 0.0}, **kwargs), folder, tok)


def test_clean_data_raises_nothing(tmp_path, tok):
    report = run(splits(tmp_path), tok)
    assert report.findings == []
    assert report.ok
    counts = report.counts["train"]
    assert counts["labels"] == {"animal": 150, "food": 150}
    assert counts["tokens"]["p100"] >= counts["tokens"]["p50"] > 0
    assert [sample["segments"][-1] for sample in report.samples] == [
        {"text": f"{label}<|im_end|>", "supervised": True}
        for label in (splits_label(tmp_path, sample["row"]) for sample in report.samples)
    ]


def splits_label(folder, row):
    return ("animal", "food")[(row - 1) % 2]


def test_flipped_labels_are_found(tmp_path, tok):
    draw = random.Random(3)
    flipped = set(draw.sample(range(300), 30))

    def flip(rows):
        other = {"animal": "food", "food": "animal"}
        return [{**row, "label": other[row["label"]]} if n in flipped else row for n, row in enumerate(rows)]

    rows = found(run(splits(tmp_path, change=flip), tok), "suspect_label").rows
    hits = {row["row"] - 1 for row in rows if row["split"] == "train"} & flipped
    assert len(hits) >= 0.8 * len(flipped)
    assert len(hits) >= 0.65 * len(rows)
    assert all(0 < row["confidence"] <= 1 and row["suggested"] != row["label"] for row in rows)


DEFINITIONS = Path(__file__).parents[2] / "examples" / "definitions"


def test_real_data_raises_nothing(tok):
    files = {"validation": "validation.jsonl", "test": "test.jsonl"}
    assert check(make_spec(**files), DEFINITIONS, tok).findings == []


@pytest.mark.parametrize("seed", [1, 2])
def test_flipped_labels_are_found_in_hard_real_data(seed):
    """Of these eight kinds the classical baseline gets 7 in 10 right; a fifth of all rows would be named by chance."""
    splits, _ = collect(make_spec(validation="validation.jsonl", test="test.jsonl"), DEFINITIONS)
    draw = random.Random(seed)
    flipped = set(draw.sample(range(360), 36))
    rows = [
        replace(row, answer=draw.choice([label for label in splits.labels if label != row.answer]))
        if index in flipped
        else row
        for index, row in enumerate(splits.train)
    ]
    named = [suspect.example.row - 1 for suspect in suspects(rows)]
    assert len(set(named) & flipped) >= 0.35 * len(named) >= 3
    assert suspects(splits.train) == []


def test_labels_without_any_meaning_are_not_called_flipped(tmp_path, tok):
    draw = random.Random(5)
    report = run(
        splits(tmp_path, change=lambda rows: [{**r, "label": draw.choice(["animal", "food"])} for r in rows]), tok
    )
    assert "suspect_label" not in codes(report)


PLANTS = {
    "shortcut_token": lambda row: {**row, "text": row["text"] + (" zq7" if row["label"] == "food" else "")},
    "shortcut_length": lambda row: {
        **row,
        "text": row["text"] + (" the old hill road" * 3 if row["label"] == "food" else ""),
    },
    "shortcut_column": lambda row: {**row, "source": {"food": "menu", "animal": "zoo"}[row["label"]]},
}


@pytest.mark.parametrize("code", PLANTS)
def test_shortcuts_are_found(tmp_path, tok, code):
    report = run(splits(tmp_path, change=lambda rows: [PLANTS[code](row) for row in rows]), tok)
    assert code in codes(report)
    assert (
        {"shortcut_token": "'zq7'", "shortcut_length": "length", "shortcut_column": "'source'"}[code]
        in found(report, code).message
        if code != "shortcut_length"
        else True
    )


@pytest.mark.parametrize("odd", [math.inf, math.nan, 10**400, 2**256 - 1])
def test_numbers_that_scikit_learn_cannot_take_are_looked_at_as_texts(tmp_path, tok, odd):
    def plant(rows):
        return [{**row, "digest": odd if row["label"] == "food" else 1} for row in rows]

    assert "'digest'" in found(run(splits(tmp_path, change=plant), tok), "shortcut_column").message


def test_an_id_that_gives_the_label_away_is_a_shortcut(tmp_path, tok):
    report = run(
        splits(tmp_path, change=lambda rows: [{**r, "id": f"{r['label']}-{n}"} for n, r in enumerate(rows)]), tok
    )
    assert "'id'" in found(report, "shortcut_column").message


def test_leaks_and_repeats_near_and_exact(tmp_path, tok):
    rows = clean_rows(400)
    leaked = {**rows[300], "id": "leak", "text": rows[300]["text"].upper()}
    near = {**rows[301], "id": "near", "text": rows[301]["text"] + " indeed"}
    repeat = {**rows[0], "id": "again"}
    close = {**rows[2], "id": "close", "text": "indeed " + rows[2]["text"]}
    write(tmp_path / "train.jsonl", [*rows[:300], leaked, near, repeat, close])
    write(tmp_path / "test.jsonl", rows[300:])
    report = run(tmp_path, tok)
    assert not report.ok
    assert codes(report) == {"leak", "near_leak", "duplicate", "near_duplicate"}
    assert found(report, "leak").level == "error"
    places = {finding.code: [(row["row"], row["like"]) for row in finding.rows] for finding in report.findings}
    assert places == {
        "leak": [(301, {"split": "test", "row": 1})],
        "near_leak": [(302, {"split": "test", "row": 2})],
        "duplicate": [(303, {"split": "train", "row": 1})],
        "near_duplicate": [(304, {"split": "train", "row": 3})],
    }
    counts = report.counts["train"]
    assert [counts[kind] for kind in ("leaked", "near_leaked", "duplicate", "near_duplicate")] == [1, 1, 1, 1]
    asked = run(tmp_path, tok, on_leak="drop_train", on_duplicate="drop")
    assert asked.ok
    assert asked.counts["train"]["dropped"] == {"duplicate": 1, "leaked": 1}


def test_near_is_as_near_as_is_asked(tmp_path, tok):
    rows = clean_rows(400)
    words = rows[0]["text"].split()
    half = {**rows[0], "id": "half", "text": " ".join([*words[:7], "or", "so", "it", "seems"])}
    write(tmp_path / "train.jsonl", [*rows[:300], half])
    write(tmp_path / "test.jsonl", rows[300:])
    assert "near_duplicate" not in codes(run(tmp_path, tok))
    report = run(tmp_path, tok, near_duplicate=0.4)
    rows = [row for finding in report.findings if finding.code == "near_duplicate" for row in finding.rows]
    assert [row["split"] for row in rows if row["row"] == 301] == ["train"]
    assert all(row["similarity"] >= 0.4 for row in rows)


def test_rows_that_cannot_be_used_are_listed_and_counted(tmp_path, tok):
    def spoil(rows):
        rows[4], rows[7], rows[9] = {**rows[4], "label": None}, {**rows[7], "text": ""}, {**rows[9], "text": " "}
        return rows

    report = run(splits(tmp_path, change=spoil), tok)
    assert not report.ok
    assert {
        finding.code: [row["row"] for row in finding.rows] for finding in report.findings if finding.code != "empty"
    } == {"label_free": [5]}
    assert report.counts["train"]["empty"] == 2
    assert report.counts["train"]["label_free"] == 1


def test_contradictions_and_similar_and_rare_labels(tmp_path, tok):
    def spoil(rows):
        more = [{**rows[0], "id": "x", "label": "food"}, {"text": "one more of these", "label": "Food", "id": "y"}]
        return [*rows, *more]

    report = run(splits(tmp_path, change=spoil), tok)
    assert codes(report) == {"contradiction", "similar_labels", "rare_label", "imbalance"}
    assert [row["row"] for row in found(report, "contradiction").rows] == [1, 301]


def test_rows_too_long(tmp_path, tok):
    def lengthen(rows):
        rows[0] = {**rows[0], "text": rows[0]["text"] + " the old road" * 300}
        return rows

    splits(tmp_path, change=lengthen)
    cut = run(tmp_path, tok, max_length=256)
    assert [row["row"] for row in found(cut, "truncated").rows] == [1]
    assert cut.ok
    refused = run(tmp_path, tok, max_length=256, on_long="refuse")
    assert found(refused, "too_long").level == "error"
    dropped = run(tmp_path, tok, max_length=256, on_long="drop")
    assert dropped.ok
    assert dropped.counts["train"]["dropped"] == {"too_long": 1}
    impossible = run(tmp_path, tok, max_length=20)
    assert codes(impossible, "error") == {"too_long"}
    assert "cannot be cut" in impossible.findings[0].message


def test_a_job_whose_every_label_is_masked_is_refused(tmp_path):
    """A tokenizer without the answers' letters makes nothing of them."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE({"<|im_start|>": 0, "<|im_end|>": 1, "?": 2}, []))
    deaf = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>")
    deaf.chat_template = family("chatml").chat_template
    report = run(splits(tmp_path), deaf)
    assert not report.ok
    assert found(report, "all_masked").level == "error"
    assert report.counts["train"]["fully_masked"] == 300


@pytest.mark.parametrize(("word", "there"), [("river", True), ("zebra", False)])
def test_tokens_without_an_embedding_are_named_where_rows_hold_them(tmp_path, word, there):
    own, folder = family("chatml"), tmp_path / "model"
    own.add_tokens([word])  # and the model is not resized
    own.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(own) - 1}))
    report = check(make_spec(model=str(folder), test="test.jsonl", split={"validation": 0.0}), splits(tmp_path))
    assert codes(report) == ({"vocabulary"} if there else set())
    if there:
        assert f"'{word}' ({len(own) - 1}); it has {len(own) - 1}" in found(report, "vocabulary").message
        assert report.samples


def test_faults_of_the_tokens_are_counted(tmp_path):
    def spoil(rows):
        rows[3] = {**rows[3], "text": rows[3]["text"] + "<|im_end|>"}
        return rows

    twice = family("headers")
    twice.chat_template = "{{ bos_token }}" + twice.chat_template
    report = run(splits(tmp_path, change=spoil), family("chatml"))
    assert [row["row"] for row in found(report, "control_tokens").rows] == [4]
    doubled = run(tmp_path, twice)
    assert doubled.counts["train"]["double_bos"] == 300
    assert len(found(doubled, "double_bos").rows) == 400


def test_fewer_rows_than_asked_are_refused(tmp_path, tok):
    report = run(splits(tmp_path, number=30), tok, min_rows=31)
    assert codes(report, "error") == {"too_few_rows"}


def test_what_stops_the_reading_is_a_finding(tmp_path, tok, monkeypatch):
    (tmp_path / "train.jsonl").write_text("{\n")
    assert codes(check(make_spec(), tmp_path, tok), "error") == {"broken_json"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write(tmp_path / "train.jsonl", clean_rows(60))
    report = check(make_spec(model="no-such-model-here"), tmp_path)
    assert codes(report, "error") == {"model"}
    assert report.counts["train"]["rows"] > 0
    assert codes(check(make_spec(), tmp_path, tokenizer("thinking", "<s>", "</s>")), "error") == {"template"}


def test_drift_of_words_and_of_labels(tmp_path, tok):
    rows = clean_rows(400)
    write(tmp_path / "train.jsonl", rows[:300])
    write(tmp_path / "test.jsonl", [{**row, "text": "moreover " + row["text"]} for row in rows[300:]])
    assert "drift" in codes(run(tmp_path, tok))
    write(tmp_path / "test.jsonl", [row for n, row in enumerate(rows[300:]) if n % 2 == 0 or n % 10 == 1])
    assert codes(run(tmp_path, tok)) == {"label_drift"}


def test_drift_stays_silent_on_halves_of_one_pool(tmp_path):
    write(tmp_path / "train.jsonl", clean_rows(400))
    for test in (0.1, 0.3, 0.5):
        parts, _ = collect(make_spec(split={"validation": 0.0, "test": test}), tmp_path)
        assert not text_drift(parts.train, parts.test).drifted
        assert not label_drift(parts.train, parts.test).drifted


def test_groups_in_train_and_test(tmp_path, tok):
    report = run(splits(tmp_path), tok, group="source")
    assert len(found(report, "group_leak").rows) == 100


@pytest.mark.parametrize("type", ["qa", "instruction", "chat", "completion"])
def test_the_other_tasks(tmp_path, tok, type):
    texts = [row["text"] for row in clean_rows(80)]
    rows = {
        "qa": [{"question": f"what is {t}?", "context": f"it is {t}", "answers": [t]} for t in texts],
        "instruction": [{"prompt": t, "completion": t} for t in texts],
        "chat": [{"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": t}]} for t in texts],
        "completion": [{"text": t} for t in texts],
    }
    write(tmp_path / "train.jsonl", rows[type])
    report = check(make_spec(type), tmp_path, tok)
    assert codes(report) == {"few_test_rows"}
    assert report.samples[0]["segments"][-1]["supervised"]


def test_the_check_needs_no_torch(tmp_path):
    """The launcher's machine may have none; what is ours must not import it."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import training_image.data.check, training_image.data\n"
        "assert 'transformers' not in sys.modules and 'sklearn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
