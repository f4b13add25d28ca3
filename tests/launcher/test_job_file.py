"""The job file: every error at once, with its line and what was probably meant; precedence; YAML's traps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from launcher import yamlfile
from launcher.job import Job, JobFile, keys, load, schema
from scripts import job_file_page
from training_image.errors import InputError

GOOD = """\
model:
  id: base
data:
  train: rows.jsonl
task:
  type: classification
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, *sets: str, backend: str | None = None) -> JobFile:
    Path("ftlaunch.yaml").write_text(text)
    return load(None, sets, backend)


def wrong(text: str, *sets: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(text, *sets)
    return [line.strip() for line in caught.value.message.splitlines()[1:]] or [caught.value.message]


def test_a_good_file_with_its_defaults(folder):
    file = read(GOOD)
    assert file.job.train.rank == 16
    assert file.job.backend == "local"
    assert file.stem == folder.name.replace("_", "-")[:54].strip("-")
    assert file.data_files() == {"train": folder / "rows.jsonl"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "trian:\n  rank: 3\n", "ftlaunch.yaml:7: unknown key trian; did you mean 'train'?"),
        (GOOD + "train:\n  rnak: 3\n", "ftlaunch.yaml:8: unknown key train.rnak; did you mean 'train.rank'?"),
        (GOOD + "epochs: 3\n", "ftlaunch.yaml:7: unknown key epochs; did you mean 'train.epochs'?"),
        (GOOD + "train:\n  rank: high\n", "ftlaunch.yaml:8: train.rank must be a valid integer, not 'high'"),
        (GOOD + "train:\n  rank: 0\n", "ftlaunch.yaml:8: train.rank must be greater than or equal to 1, not 0"),
        (GOOD + "train:\n  epochs: .inf\n", "ftlaunch.yaml:8: train.epochs must be a finite number up to 9e15"),
        (GOOD + "budget:\n  max_hours: 1e306\n", ":8: budget.max_hours must be a finite number up to 9e15"),
        (GOOD + "backends: {local: {threads: 1%s}}\n" % ("0" * 99), "backends.local.threads must be a finite number"),
        (GOOD + "train: 3\n", "ftlaunch.yaml:7: train must be keys and values of Train, not 3"),
        (GOOD + "train:\n  rank: 3\n  rank: 4\n", ":9: train.rank stands here a second time (first on line 8)"),
        (GOOD + "secrets: [1]\n", "ftlaunch.yaml:7: secrets.0 must be a valid string, not 1; put it in quotes"),
        (GOOD.replace("  type: classification", "  labels: [a]"), "ftlaunch.yaml:5: task.type is missing"),
        (GOOD.replace("rows.jsonl", "nothing.jsonl"), "ftlaunch.yaml:4: data.train: there is no file"),
        (GOOD.replace("id: base", "id: ./nothing"), "ftlaunch.yaml:2: model.id: there is no folder"),
        (GOOD.replace("id: base", "id: a/b/c"), ":2: model.id: 'a/b/c' is neither a folder here nor a hub"),
        (GOOD + "backend: locl\n", "ftlaunch.yaml:7: backend: there is no backend 'locl'; did you mean 'local'?"),
        (GOOD + "backends:\n  local:\n    pyton: x\n", "did you mean 'backends.local.python'?"),
        (
            GOOD.replace("rows.jsonl", "rows.jsonl\n  columns: {texxt: a}"),
            "ftlaunch.yaml:5: data.columns has no role 'texxt'; did you mean 'text'?",
        ),
    ],
)  # fmt: skip
def test_an_error_names_place_and_remedy(text, said):
    (told,) = wrong(text)
    assert said in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "train:\n\trank: 3\n", "ftlaunch.yaml:8:1: found character"),
        ("model: [1, 2\ndata: 3\n", "ftlaunch.yaml:2:"),
        ("- a\n- b\n", "ftlaunch.yaml:1: expected keys and values"),
        ("a: &x\n  b: *x\n", "a value that contains itself"),
        (f"a: 1\nb: {'9' * 5000}\n", f"ftlaunch.yaml:2: {'9' * 37}... cannot be read as a number"),
    ],
)
def test_what_is_no_yaml_is_told_with_line_and_column(text, said):
    assert said in wrong(text)[0]


def test_what_is_no_text_is_told_with_its_line():
    Path("ftlaunch.yaml").write_bytes(b"model:\n  id: \xff\n")
    with pytest.raises(InputError, match=r"ftlaunch.yaml:2: not UTF-8 text"):
        load(None)


def test_tabs_are_named():
    Path("ftlaunch.yaml").write_text(GOOD + "train:\n\trank: 3\n")
    with pytest.raises(InputError) as caught:
        load(None)
    assert "not with tabs" in caught.value.hint


def test_all_errors_come_at_once_in_the_order_of_the_file():
    text = "model:\n  idd: x\n  id: ./no\ndata:\n  train: no.jsonl\n  max_length: 1\ntask:\n  type: nope\nextra: 1\n"
    told = wrong(text)
    assert [line.split(": ")[0].rpartition(":")[2] for line in told] == ["2", "3", "5", "6", "8", "9"]


def test_an_empty_file_lists_what_is_missing():
    told = wrong("")
    assert len(told) == 3
    assert all("is missing" in line for line in told)


def test_plain_values_are_read_as_they_were_written():
    file = read(
        GOOD.replace("classification", "classification\n  labels: [no, on, yes, 1:30, 2020-01-01]")
        + "train:\n  learning_rate: 1e-4\n  checkpointing: off\nevaluate:\n  enough: ~\n"
    )
    assert file.job.task.labels == ["no", "on", "yes", "1:30", "2020-01-01"]
    assert file.job.train.learning_rate == 1e-4
    assert file.job.train.checkpointing == "off"
    assert file.job.evaluate.enough is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # cores may be busy with trainings
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), values, max_size=4))
def test_what_is_dumped_is_read_back(content):
    text = yamlfile.dump(content)
    try:
        again = yamlfile.parse(text, "x").value
    except InputError:  # characters that YAML has no place for
        return
    assert again == content


def test_precedence_is_set_over_file_over_config_over_default(folder):
    (folder / "home" / "config.yaml").write_text(
        "train: {rank: 3, alpha: 5, epochs: 7}\nbackends: {local: {threads: 1}}\n"
    )
    file = read(GOOD + "train: {rank: 4, alpha: 6}\n", "train.rank=8")
    assert (file.job.train.rank, file.job.train.alpha, file.job.train.epochs) == (8, 6, 7)
    assert file.job.train.dropout == 0
    assert file.job.backends == {"local": {"threads": 1}}


def test_an_error_of_config_or_set_names_its_origin(folder):
    (folder / "home" / "config.yaml").write_text("budget:\n  max_usd: -1\n")
    told = wrong(GOOD, "train.rank=much", "train.nope=1")
    assert any("config.yaml:2: budget.max_usd" in line for line in told)
    assert any(line.startswith("--set train.rank=much: train.rank must be a valid integer") for line in told)
    assert any(line.startswith("--set train.nope=1: unknown key train.nope") for line in told)


def test_a_set_without_a_value_is_refused():
    assert "--set train.rank: expected KEY=VALUE" in wrong(GOOD, "train.rank")[0]


def test_the_command_line_decides_on_the_backend():
    assert read(GOOD + "backend: nowhere\n", backend="local").job.backend == "local"


def test_paths_are_relative_to_the_job_file(folder, monkeypatch):
    (folder / "ftlaunch.yaml").write_text(GOOD)
    (folder / "else").mkdir()
    monkeypatch.chdir(folder / "else")
    file = load("..")
    assert file.model_folder == folder / "base"
    assert file.data_files() == {"train": folder / "rows.jsonl"}


def test_a_hub_id_is_taken_as_it_is():
    file = read(GOOD.replace("id: base", "id: HuggingFaceTB/SmolLM2-135M-Instruct"))
    assert file.model_folder is None


def test_as_submitted_reads_back_as_the_same_job(folder):
    file = read(GOOD + "name: Birds!\ntrain: {learning_rate: 1e-5}\n", "train.rank=9")
    again = folder / "elsewhere" / "job.yaml"
    again.parent.mkdir()
    again.write_text(file.as_submitted())
    other = load(str(again))
    assert other.job.train == file.job.train
    assert other.stem == file.stem == "birds"
    assert other.data_files() == file.data_files()


@pytest.mark.parametrize("argument", ["nothing", "home"])
def test_no_job_there(argument):
    with pytest.raises(InputError, match=r"nothing|holds no ftlaunch\.yaml"):
        load(argument)


def test_the_page_of_all_keys_is_as_the_code_has_them():
    assert job_file_page.PAGE.read_text() == job_file_page.page(), "python -m scripts.job_file_page writes it anew"


def test_at_most_sixty_keys():
    assert len(list(keys())) <= 60


def test_a_pattern_is_that_of_the_whole_value():
    """Or it is found somewhere in the value, and us-central1/../x is a region."""

    def patterns(part):
        if isinstance(part, dict):
            yield from [part["pattern"]] if isinstance(part.get("pattern"), str) else []
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from patterns(inner)

    found = list(patterns(schema()))
    assert len(found) > 10
    assert [pattern for pattern in found if not (pattern[0] == "^" and pattern[-1] == "$")] == []


@pytest.mark.parametrize(
    ("place", "option", "value"),
    [
        ("sagemaker", "prefix", "/team"),
        ("sagemaker", "account", "1234567890123"),
        ("vertex", "region", "us-central1/../x"),
        ("colab-enterprise", "project", "UPPER!abcdef"),
    ],
)
def test_an_option_is_matched_as_a_whole(place, option, value):
    assert "must match the pattern" in wrong(f'{GOOD}backends: {{{place}: {{{option}: "{value}"}}}}\n')[0]


def test_every_key_is_described():
    told = schema()
    for name, part in {"Job": told, **told["$defs"]}.items():
        for key, value in part.get("properties", {}).items():
            described = value.get("description") or "$ref" in value or "$ref" in str(value.get("allOf"))
            assert described, f"{name}.{key}"


def test_the_schema_takes_good_files_and_refuses_others():
    validator = Draft202012Validator(schema())
    good = yamlfile.parse(GOOD + "backends:\n  local:\n    threads: 2\n", "x").value
    assert list(validator.iter_errors(good)) == []
    assert list(validator.iter_errors(good | {"epochs": 3}))
    assert list(validator.iter_errors(good | {"backends": {"local": {"nope": 1}}}))
    json.dumps(schema())


def test_the_budget_is_the_longest_run_time():
    assert read(GOOD + "budget: {max_hours: 1.5}\n").job.max_seconds == 5400
    assert Job.model_fields["backends"].description
