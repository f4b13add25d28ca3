"""The hash split, and what is dropped: only what the job file asks for, and counted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import clean_rows, make_spec, write

from training_image.data import Example, load_splits
from training_image.data.normal import normalise
from training_image.data.problems import DataError
from training_image.data.split import assign


def example(index, text, group=None, id=None):
    fields = {"group": group} | ({} if id is None else {"id": id})
    return Example(str(index), index, (), "a", ("a",), text, fields)


ROWS = st.lists(
    st.tuples(st.sampled_from(["A b.", "a  B", "c", "d", "e!", "é"]), st.sampled_from([None, 1, 2]), st.integers(0, 9)),
    max_size=12,
)


@settings(max_examples=200)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_split_follows_from_the_rows_alone(found, draw):
    rows = [example(index, *row) for index, row in enumerate(found)]
    sides = dict(zip([row.id for row in rows], assign(rows, 0.3, 0.3, "id", "group"), strict=True))
    shuffled = list(rows)
    draw.shuffle(shuffled)
    again = dict(zip([row.id for row in shuffled], assign(shuffled, 0.3, 0.3, "id", "group"), strict=True))
    assert again == sides
    for one in rows:
        for other in rows:
            same_text = normalise(one.text) == normalise(other.text)
            same_group = one.fields["group"] is not None and one.fields["group"] == other.fields["group"]
            if same_text or same_group:
                assert sides[one.id] == sides[other.id]


def test_rows_added_later_move_none():
    rows = [example(index, f"text {index}") for index in range(300)]
    assert assign(rows, 0.2, 0.2)[:200] == assign(rows[:200], 0.2, 0.2)


def test_shares_are_kept_about():
    sides = assign([example(index, f"text {index}") for index in range(4000)], 0.15, 0.2)
    assert abs(sides.count("test") / 4000 - 0.2) < 0.02
    assert abs(sides.count("validation") / 4000 - 0.15) < 0.02


@pytest.mark.parametrize("joined_by", ["a group", "their text"])
def test_shares_are_kept_about_where_rows_are_joined(joined_by):
    grouped = joined_by == "a group"
    rows = [
        example(index, f"text {index if grouped else index // 20}", index // 20 if grouped else None, id=index)
        for index in range(20_000)
    ]
    sides = assign(rows, 0.15, 0.2, "id", "group")
    assert abs(sides.count("test") / 20_000 - 0.2) < 0.05
    assert abs(sides.count("validation") / 20_000 - 0.15) < 0.05


def test_rows_added_to_a_group_later_do_not_move_it():
    rows = [example(index, f"text {index}", index % 50) for index in range(300)]
    assert assign(rows, 0.2, 0.2, "id", "group")[:50] == assign(rows[:50], 0.2, 0.2, "id", "group")


def test_the_split_is_the_same_everywhere():
    """A constant: a changed hash would move rows that an earlier model was trained on into test."""
    assert assign([example(index, f"text {index}") for index in range(12)], 0.3, 0.3) == GOLDEN


GOLDEN = [
    "validation",
    "validation",
    "train",
    "validation",
    "train",
    "validation",
    "test",
    "test",
    "train",
    "validation",
    "validation",
    "test",
]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A cat!", "a  CAT", True),
        ("ﬁne", "fine", True),
        ("Straße", "STRASSE", True),
        ("3.5 m", "35 m", False),
        ("5 - 3", "5 + 3", False),
        ("it is -5", "it is 5", False),
        ("!!!", "???", False),
        ("in 1990.", "In 1990", True),
    ],
)
def test_what_counts_as_the_same(one, other, same):
    assert (normalise(one) == normalise(other)) == same


def job(tmp_path, train, test, **data):
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "test.jsonl", test)
    return load_splits(make_spec(test="test.jsonl", split={"validation": 0.0}, **data), tmp_path)


def test_a_leak_is_refused_and_named(tmp_path):
    rows = clean_rows(80)
    leaked = [{**rows[0], "text": rows[0]["text"].upper() + " !"}, {**rows[1], "id": "x"}]
    with pytest.raises(
        DataError, match=r"2 inputs of train stand in test too: train.jsonl: rows 1, 2 \(row 1 is row 21"
    ):
        job(tmp_path, rows[:60], [*rows[60:], *leaked])


def test_a_leak_is_dropped_from_train_if_asked(tmp_path):
    rows = clean_rows(80)
    splits = job(tmp_path, rows[:60], [*rows[60:], rows[3]], on_leak="drop_train")
    assert splits.counts["train"] == {"rows": 60, "used": 59, "dropped": {"leaked": 1}}
    assert splits.counts["test"] == {"rows": 21, "used": 21, "dropped": {}}
    assert rows[3]["text"] not in {row.text for row in splits.train}


def test_a_validation_row_in_test_leaks_too(tmp_path):
    rows = clean_rows(80)
    write(tmp_path / "train.jsonl", rows[:40])
    write(tmp_path / "validation.jsonl", rows[40:61])
    write(tmp_path / "test.jsonl", rows[60:])
    files = {"validation": "validation.jsonl", "test": "test.jsonl"}
    with pytest.raises(DataError, match=r"1 inputs of validation stand in test too: validation\.jsonl: row 21"):
        load_splits(make_spec(**files), tmp_path)
    assert load_splits(make_spec(**files, on_leak="drop_train"), tmp_path).counts["validation"]["dropped"] == {
        "leaked": 1
    }


def test_repeats_are_kept_unless_asked(tmp_path):
    rows = clean_rows(80)
    train = [*rows[:60], rows[5], {**rows[6], "label": "food"}]
    assert job(tmp_path, train, rows[60:]).counts["train"]["used"] == 62
    counts = job(tmp_path, train, rows[60:], on_duplicate="drop").counts["train"]
    assert counts == {"rows": 62, "used": 61 - (rows[6]["label"] == "food"), "dropped": counts["dropped"]}
    assert set(counts["dropped"]) == {"duplicate"}


def test_max_rows_keeps_every_label(tmp_path):
    rows = sorted(clean_rows(120), key=lambda row: row["label"])
    splits = job(tmp_path, rows[10:110], rows[:10] + rows[110:], max_rows=6, min_rows=20)
    assert [len(part) for _, part in splits.named()] == [6, 0, 6]
    assert sorted(row.answer for row in splits.train) == ["animal"] * 3 + ["food"] * 3
    assert splits.counts["train"]["dropped"] == {"max_rows": 94}


def test_too_few_rows_one_class_and_absent_labels(tmp_path):
    rows = clean_rows(40)
    with pytest.raises(DataError, match=r"30 usable training rows, data\.min_rows asks for 31"):
        job(tmp_path, rows[:30], rows[30:], min_rows=31)
    animals = [row for row in rows if row["label"] == "animal"]
    with pytest.raises(DataError, match="one label only"):
        job(tmp_path, animals[:10], animals[10:])
    with pytest.raises(DataError, match=r"test.jsonl: row 2: the label 'food' does not stand in train"):
        job(tmp_path, [*animals[:10], {**animals[0], "text": "z", "label": "plant"}], [animals[11], rows[1]])
    write(tmp_path / "train.jsonl", [*animals, *({**rows[1], "text": f"food {n}"} for n in range(10))])
    with pytest.raises(DataError, match="no training row has the label 'plant'"):
        load_splits(make_spec(task={"labels": ["animal", "food", "plant"]}), tmp_path)


def test_a_label_that_the_hash_split_puts_outside_train(tmp_path):
    """One text alone has the label, and its group falls into test."""
    rows = clean_rows(100)
    for number in range(30):
        odd = {"id": f"odd-{number}", "text": f"the odd one {number}", "label": "odd"}
        write(tmp_path / "train.jsonl", [*rows, odd])
        sides = assign([example(0, odd["text"], id=odd["id"])], 0.15, 0.2)
        if sides == ["train"]:
            assert any(row.answer == "odd" for row in load_splits(make_spec(), tmp_path).train)
        else:
            with pytest.raises(DataError, match=r"no training row has the label 'odd' \(1 rows elsewhere") as caught:
                load_splits(make_spec(), tmp_path)
            assert "files of your own" in caught.value.hint
            return
    pytest.fail("no row of 30 fell outside train")


def test_ids_are_the_rows_own_and_unique(tmp_path):
    rows = [{"text": f"t {n} {random.Random(n).random()}", "label": "ab"[n % 2], "id": n // 2} for n in range(60)]
    write(tmp_path / "train.jsonl", rows)
    splits = load_splits(make_spec(), tmp_path)
    for _, part in splits.named():
        assert len({row.id for row in part}) == len(part)
