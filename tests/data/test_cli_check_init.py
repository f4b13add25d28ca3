"""``ftlaunch check`` and ``ftlaunch init``, as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chat_families import family
from specs import clean_rows, splits, write

from launcher.cli import call
from launcher.init_job import find_files, guess
from launcher.job import load
from training_image.data.read import read_table


@pytest.fixture
def model(tmp_path_factory):
    """A folder with a tokenizer and a config: the check needs no weights."""
    folder = tmp_path_factory.mktemp("model")
    family("chatml").save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path_factory.mktemp("home")))


ROWS = {
    "classification": [{"body": row["text"], "kind": row["label"], "uid": row["id"]} for row in clean_rows(60)],
    "qa": [
        {"question": f"what is {n}?", "context": f"it is {n}", "answers": {"text": [str(n)], "answer_start": [6]}}
        for n in range(60)
    ],
    "instruction": [{"instruction": f"say {n}", "input": "" if n % 2 else "now", "output": str(n)} for n in range(60)],
    "chat": [
        {"conversations": [{"from": "human", "value": f"say {n}"}, {"from": "gpt", "value": str(n)}]} for n in range(60)
    ],
    "completion": [{"text": row["text"]} for row in clean_rows(60)],
}
COLUMNS = {
    "classification": {"text": "body", "label": "kind"},
    "qa": {"question": "question", "context": "context", "answers": "answers"},
    "instruction": {"prompt": "instruction", "completion": "output", "input": "input"},
    "chat": {"messages": "conversations"},
    "completion": {"text": "text"},
}


@pytest.mark.parametrize("task", ROWS)
def test_init_writes_a_job_that_check_accepts(tmp_path, model, monkeypatch, capsys, task):
    write(tmp_path / "rows.jsonl", ROWS[task])
    monkeypatch.chdir(tmp_path)
    assert call(["init", "rows.jsonl", "--model", str(model)]) == 0
    job = load(None).job
    assert job.task.type == task
    assert job.data.columns == COLUMNS[task]
    capsys.readouterr()
    assert call(["check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["ok", "findings", "counts", "samples"]
    assert report["ok"]
    assert len(report["samples"]) <= 3


def test_init_finds_siblings_and_writes_nothing_over(tmp_path, model, capsys):
    for name in ("reviews_train", "reviews_dev", "reviews_test"):
        write(tmp_path / f"{name}.jsonl", ROWS["classification"])
    output = tmp_path / "jobs" / "ftlaunch.yaml"
    arguments = ["init", str(tmp_path / "reviews_train.jsonl"), "--output", str(output), "--model", str(model)]
    assert call(arguments) == 0
    data = load(str(output)).job.data
    assert (data.train, data.validation, data.test) == (
        "../reviews_train.jsonl",
        "../reviews_dev.jsonl",
        "../reviews_test.jsonl",
    )
    output.write_text("mine")
    assert call(arguments) == 2
    assert output.read_text() == "mine"
    assert call([*arguments, "--force"]) == 0
    assert output.read_text() != "mine"


def test_init_takes_a_folder(tmp_path):
    splits(tmp_path)
    assert find_files(str(tmp_path)) == {"train": f"{tmp_path}/train.jsonl", "test": f"{tmp_path}/test.jsonl"}


def test_odd_columns_and_labels_survive_the_job_file(tmp_path, model):
    rows = [{"no": row["text"], "the label: #1": row["label"]} for row in clean_rows(60)]
    write(tmp_path / "rows.jsonl", rows)
    output = tmp_path / "ftlaunch.yaml"
    assert call(["init", str(tmp_path / "rows.jsonl"), "--output", str(output), "--model", str(model)]) == 0
    assert load(str(output)).job.data.columns == {"text": "no", "label": "the label: #1"}


def test_a_text_without_labels_is_a_completion(tmp_path):
    write(tmp_path / "rows.jsonl", [{"name": str(n), "words": f"some words {n}"} for n in range(30)])
    found = guess(read_table("rows.jsonl", tmp_path))
    assert (found.task, found.columns) == ("completion", {"text": "words"})


def test_bad_data_for_init(tmp_path, capsys):
    assert call(["init", str(tmp_path / "none.jsonl")]) == 2
    write(tmp_path / "numbers.jsonl", [{"a": 1}])
    assert call(["init", str(tmp_path / "numbers.jsonl"), "--output", str(tmp_path / "x.yaml")]) == 2
    assert "no column holds text; there are a" in capsys.readouterr().err


def job(folder, model):
    splits(folder)
    (folder / "ftlaunch.yaml").write_text(
        f"model: {{id: {model}}}\ndata: {{train: train.jsonl, test: test.jsonl}}\ntask: {{type: classification}}\n"
    )


def test_check_shows_a_table_with_samples(tmp_path, model, monkeypatch, capsys):
    job(tmp_path, model)
    monkeypatch.setenv("COLUMNS", "100")
    assert call(["check", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "near duplicate" in shown
    assert "tokens a row, p95" in shown
    assert "⟦food<|im_end|>⟧" in shown or "⟦animal<|im_end|>⟧" in shown
    assert shown.rstrip().endswith("ok")


def test_check_refuses_with_2_and_names_the_users_own_file(tmp_path, model, monkeypatch, capsys):
    job(tmp_path, model)
    monkeypatch.chdir(tmp_path)
    lines = (tmp_path / "test.jsonl").read_text().splitlines()
    write(tmp_path / "mine.jsonl", [*clean_rows(300), json.loads(lines[0])])
    sets = ["--set", "data.train=mine.jsonl"]
    assert call(["check", *sets]) == 2
    shown = capsys.readouterr().out
    assert "mine.jsonl: row 301" in shown
    assert "drop_train" in shown
    assert shown.index("⟦trained⟧") < shown.index("mine.jsonl: row 301") < shown.index("refused: 1 error")
    assert call(["check", "--json", *sets, "--set", "data.on_leak=drop_train"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["train"]["dropped"] == {"leaked": 1}


def test_a_terminal_that_lacks_a_character_gets_another(tmp_path, model):
    job(tmp_path, model)
    command = [Path(sys.executable).with_name("ftlaunch"), "check", tmp_path]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "?animal<|im_end|>?" in done.stdout


def test_check_does_not_touch_the_terminal_with_json(tmp_path, model, capsys):
    job(tmp_path, model)
    (tmp_path / "train.jsonl").write_text('{"text": "[bold]a", "label": "b"}\n{\n')
    assert call(["check", str(tmp_path), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in report["findings"]] == ["broken_json"]
    assert report["counts"] == {}
    assert call(["check", str(tmp_path)]) == 2
    assert "line 2" in capsys.readouterr().out
