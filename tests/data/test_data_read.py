"""Rows read from every format, and every bad input named with its place."""

from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specs import make_spec, write

from training_image.data import load_splits
from training_image.data.problems import DataError
from training_image.data.read import MAX_ROW_BYTES, read_table
from training_image.errors import InputError

ROWS = [{"text": f"text number {index}, with 'quotes'\nand lines", "label": "ab"[index % 2]} for index in range(40)]


def save(path, rows):
    if path.suffix == ".jsonl":
        write(path, rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    save(tmp_path / f"train.{suffix}", ROWS)
    table = read_table(f"train.{suffix}", tmp_path)
    assert table.rows == ROWS
    assert table.numbers == list(range(1, 41))
    splits = load_splits(make_spec(train=f"train.{suffix}"), tmp_path)
    assert splits.labels == ["a", "b"]
    assert sum(len(rows) for _, rows in splits.named()) == 40


def input_error(call):
    """The InputError that a call raises, None without one; anything else is a fault of ours."""
    try:
        call()
    except InputError as error:
        return error
    return None


CELLS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.fixed_dictionaries({"text": CELLS, "label": CELLS}), min_size=1, max_size=8))
def test_what_is_written_is_read(tmp_path, rows):
    for suffix in ("jsonl", "json", "csv", "parquet"):
        save(tmp_path / f"train.{suffix}", rows)
        assert read_table(f"train.{suffix}", tmp_path).rows == rows


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["jsonl", "json", "csv", "parquet"]))
def test_any_bytes_are_rows_or_an_input_error(tmp_path, raw, suffix):
    (tmp_path / f"train.{suffix}").write_bytes(raw)
    told = input_error(lambda: read_table(f"train.{suffix}", tmp_path))
    assert told is None or (f"train.{suffix}" in told.message and told.hint)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["classification", "qa", "instruction", "chat", "completion"]),
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["text", "label", "question", "context", "answers", "messages", "prompt", "completion", "id"]
            ),
            JSON,
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_values_are_examples_or_an_input_error(tmp_path, type, rows):
    write(tmp_path / "train.jsonl", rows)
    told = input_error(lambda: load_splits(make_spec(type, split={"validation": 0.1, "test": 0.5}), tmp_path))
    assert told is None or told.message


GOOD = '{"text": "a", "label": "b"}\n'
BAD_FILES = {
    "broken_json": (
        "jsonl",
        GOOD.encode() * 2 + b'{"text": "a"\n' + GOOD.encode(),
        r"train.jsonl: line 3 is not valid",
    ),
    "not_an_object": ("jsonl", GOOD.encode() + b"[1]\n", r"train.jsonl: line 2 is a list"),
    "bad_utf8": ("jsonl", GOOD.encode() + b'{"text": "\xff"}\n', r"train.jsonl: line 2, byte 11 is not UTF-8 \(0xff\)"),
    "bad_utf8_csv": ("csv", b"text,label\nok,a\nno \xe9,b\n", r"train.csv: line 3, byte 4 is not UTF-8 \(0xe9\)"),
    "empty": ("jsonl", b"", "train.jsonl: the file is empty"),
    "blank": ("jsonl", b"\n\n", "train.jsonl: the file holds no rows"),
    "header_alone": ("csv", b"text,label\n", "train.csv: the file holds no rows"),
    "no_list": ("json", b'{"a": 1}', "train.json: holds an object, not a list"),
    "broken_list": ("json", b'[{"a": 1},\n{"a": }]', "train.json: line 2, column 7"),
    "cells": ("csv", b"text,label\na,b\na,b,c\n", "train.csv: line 3 has 3 cells, the header has 2"),
    "quote": ("csv", b'text,label\n"a"x,b\n', "train.csv: line 2"),
    "header": ("csv", b"text,text\na,b\n", "names 'text' more than once"),
    "no_parquet": ("parquet", b"PAR1 not at all", "train.parquet: not readable as parquet"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_its_line(tmp_path, case):
    suffix, raw, message = BAD_FILES[case]
    (tmp_path / f"train.{suffix}").write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        load_splits(make_spec(train=f"train.{suffix}"), tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_row_of_50_mb_is_refused(tmp_path, suffix):
    save(tmp_path / f"train.{suffix}", [*ROWS[:2], {"text": "x" * 50_000_000, "label": "a"}])
    with pytest.raises(DataError, match=r"(line|row) [34] is longer than 10 MB" if suffix != "csv" else "longer than"):
        read_table(f"train.{suffix}", tmp_path)
    assert MAX_ROW_BYTES == 10_000_000


def test_a_missing_file_and_an_unknown_kind(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_table("train.jsonl", tmp_path)
    with pytest.raises(DataError, match="xlsx"):
        read_table("train.xlsx", tmp_path)


def test_a_set_that_the_hub_does_not_give_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hub:nobody/nothing-of-this-name:train: could not be loaded from the hub"):
        load_splits(make_spec(train="hub:nobody/nothing-of-this-name:train"), tmp_path)


def test_a_missing_column_names_the_nearest(tmp_path):
    write(tmp_path / "train.jsonl", [{"texts": "a", "label": "b"}])
    with pytest.raises(DataError, match=r"no column 'text'.*there are texts, label; the nearest is 'texts'"):
        load_splits(make_spec(), tmp_path)


BAD_ROWS = {
    "wrong_type": ({"text": 5, "label": "a"}, "row 3: column 'text' holds a number, not text"),
    "wrong_label": ({"text": "a", "label": ["a"]}, "row 3: column 'label' holds a list, not text"),
    "no_label": ({"text": "a", "label": None}, "row 3: the row has no label"),
    "blank": ({"text": "  ", "label": "a"}, "row 3: column 'text' is blank"),
    "surrogate": ({"text": "a \ud800", "label": "a"}, "row 3: .*surrogate"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, case):
    row, message = BAD_ROWS[case]
    write(tmp_path / "train.jsonl", [*ROWS[:2], row, *ROWS[3:]])
    with pytest.raises(DataError, match=message):
        load_splits(make_spec(), tmp_path)


def test_rows_are_counted_as_lines(tmp_path):
    (tmp_path / "train.jsonl").write_text("\n\n" + GOOD + "\n" + '{"text": "a", "label": 7.5}\n')
    with pytest.raises(DataError, match="row 5"):
        load_splits(make_spec(), tmp_path)


def only(type, row, tmp_path, **kwargs):
    write(tmp_path / "train.jsonl", [row] if isinstance(row, dict) else row)
    splits = load_splits(make_spec(type, split={"validation": 0.0, "test": 0.5}, **kwargs), tmp_path)
    return [example for _, part in splits.named() for example in part]


@pytest.mark.parametrize("answers", [["x", "y", "x"], {"text": ["x", "y"], "answer_start": [1, 2]}, '["x", "y"]'])
def test_answers_of_questions(tmp_path, answers):
    rows = [{"question": f"q{index}?", "context": f"c {index}", "answers": answers} for index in range(20)]
    example = only("qa", rows, tmp_path)[0]
    assert example.references == ("x", "y")
    assert "unanswerable" not in example.messages[0]["content"]


def test_unanswerable_questions_are_kept_and_asked_for(tmp_path):
    rows = [{"question": f"q{index}?", "context": f"c {index}", "answers": []} for index in range(20)]
    example = only("qa", rows, tmp_path)[0]
    assert example.references == ("unanswerable",)
    assert "answer: unanswerable." in example.messages[0]["content"]


def test_alpaca_columns_by_mapping(tmp_path):
    rows = [{"instruction": f"do {index}", "input": "" if index else "it", "output": "done"} for index in range(20)]
    examples = only("instruction", rows, tmp_path, columns={"prompt": "instruction", "completion": "output"})
    contents = {example.row: example.messages[-1]["content"] for example in examples}
    assert contents[1] == "do 0\n\nit"
    assert contents[2] == "do 1"


def test_chats_in_both_notations(tmp_path):
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    other = [{"from": "human", "value": "hi there"}, {"from": "gpt", "value": "ho"}]
    rows = [
        {"messages": plain},
        *({"messages": [*other, {**plain[0], "content": str(n)}, plain[1]]} for n in range(20)),
    ]
    examples = {example.row: example for example in only("chat", rows, tmp_path)}
    assert examples[1].messages == (plain[0],)
    assert [turn["role"] for turn in examples[2].messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "a"}],
        [{"role": "assistant", "content": "a"}],
        [{"role": "tool", "content": "a"}],
        [7],
    ],
)
def test_chats_that_cannot_be_trained_on(tmp_path, turns):
    with pytest.raises(DataError, match="row 1"):
        only("chat", {"messages": turns}, tmp_path)
