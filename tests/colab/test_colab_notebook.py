"""The notebook way: written by the command, executed on an empty machine, its archive taken in as any results are."""

import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import pytest
import yaml

from tests.tiny_model import MODEL, tasks

SECRET = "FTLAUNCH_TEST_TOKEN"


class Desk:
    """A user's folder with one job, and the command."""

    def __init__(self, folder: Path, **top) -> None:
        self.folder = tasks.write(folder, "colours", train=60, validation=30, test=30)
        self.value = f"secret-{secrets.token_hex(12)}"
        self.environment = {**os.environ, "FTLAUNCH_HOME": str(folder / "home"), SECRET: self.value}
        job = {
            "name": "by-hand",
            "model": {"id": str(MODEL)},
            "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", "max_length": 96},
            "task": {"type": "classification"},
            "train": {"epochs": 1.0, "rank": 4, "max_steps": 10},
            "evaluate": {"enough": None, "forgetting": False, "resamples": 200},
            "secrets": [SECRET],
        }
        (self.folder / "ftlaunch.yaml").write_text(yaml.safe_dump(job | top))

    def run(self, *arguments, code=0):
        command = [str(Path(sys.executable).with_name("ftlaunch")), *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    def write(self) -> Path:
        return self.folder / self.run("--backend", "colab", "--notebook").stdout.strip()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def executed(desk, machine, tmp_path_factory):
    """The notebook with its outputs, and the archive that the browser saved."""
    from tests.colab.notebook_kernel import execute

    folder = tmp_path_factory.mktemp("machine")
    notebook = desk.write()
    outputs = execute(notebook, machine, folder, {SECRET: desk.value})
    [archive] = (folder / "downloads").iterdir()
    return outputs, archive


def test_colab_notebook_runs_and_its_archive_is_taken_in(desk, executed):
    outputs, archive = executed
    job = archive.stem
    listed = json.loads(desk.run("jobs", "--json").stdout)
    assert [(each["job"], each["state"], each["ended"]) for each in listed] == [(job, "QUEUED", None)]
    told = json.loads(desk.run("fetch", job, "--from", archive, "--json").stdout)
    assert told["state"] == "SUCCEEDED"
    output = Path(told["output"])
    result = json.loads((output / "result.json").read_text())
    assert result["job"] == job
    assert result["platform"]["name"] == "colab"
    assert result["verdict"]["outcome"] in ("improved", "inconclusive", "degraded")
    assert {"job.yaml", "manifest.json", "adapter"} <= {path.name for path in output.iterdir()}
    assert "[train]" in desk.run("logs", job).stdout
    shown = "".join(each.get("text", "") for cell in outputs.cells for each in cell.get("outputs", ()))
    assert "[train]" in shown
    again = desk.run("fetch", job, "--from", archive, code=2)
    assert "exists already" in again.stderr


def test_colab_notebook_holds_no_secret(desk, executed):
    outputs, archive = executed
    texts = [nbformat.writes(outputs), (desk.folder / f"{archive.stem}.ipynb").read_text()]
    assert all(SECRET in text and desk.value not in text for text in texts)
    assert desk.value.encode() not in archive.read_bytes()


def test_colab_notebook_damaged_archive_is_refused(desk, executed, tmp_path):
    _, archive = executed
    damaged = tmp_path / archive.name
    with tarfile.open(archive) as whole, tarfile.open(damaged, "w") as copy:
        for member in whole:
            content = whole.extractfile(member).read() if member.isfile() else b""
            if member.name.endswith("tuned.jsonl"):
                content = content.replace(b"1", b"2")
            copy.addfile(member, io.BytesIO(content) if member.isfile() else None)
    told = desk.run("fetch", archive.stem, "--from", damaged, "--output", tmp_path / "out", code=2)
    assert "1 files" in told.stderr
    assert "predictions/tuned.jsonl" in told.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not an archive", "is no archive of a notebook of ours"),
        (None, "No such file"),
        ({"job": "another-12345678", "exit_code": 0, "started": 1.0, "ended": 2.0}, "holds the results of another-123"),
        ({"job": "another-12345678"}, "is no archive of a notebook of ours"),
    ],
)
def test_colab_notebook_other_files_are_refused(desk, tmp_path, content, words):
    job = desk.write().stem
    archive = tmp_path / "some.tar"
    if isinstance(content, bytes):
        archive.write_bytes(content)
    elif content is not None:
        (tmp_path / "ended.json").write_text(json.dumps(content))
        with tarfile.open(archive, "w") as made:
            made.add(tmp_path / "ended.json", "ended.json")
    told = desk.run("fetch", job, "--from", archive, "--output", tmp_path / "out", code=2)
    assert words in told.stderr


def test_colab_notebook_of_a_failed_training_brings_what_there_is(desk, tmp_path):
    job = desk.write().stem
    ended = {"schema": 1, "job": job, "exit_code": 3, "started": 10.0, "ended": 20.0}
    (tmp_path / "ended.json").write_text(json.dumps(ended))
    (tmp_path / "log.txt").write_text("[load] model\nerror: memory ran out\n")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "metrics.jsonl").write_text("{}\n")
    with tarfile.open(tmp_path / "some.tar", "w") as made:
        for name in ("ended.json", "log.txt", "output"):
            made.add(tmp_path / name, name)
    home = tmp_path / "home"
    shutil.copytree(desk.folder / "home", home)  # this record's end is not the other tests'
    desk_of_its_own = Desk(tmp_path / "desk")
    desk_of_its_own.environment["FTLAUNCH_HOME"] = str(home)
    told = desk_of_its_own.run("fetch", job, "--from", tmp_path / "some.tar", "--output", tmp_path / "out", "--json")
    document = json.loads(told.stdout)
    assert (document["state"], document["reason"], document["message"]) == (
        "FAILED",
        "OUT_OF_MEMORY",
        "memory ran out",
    )
    assert "partial results" in told.stderr
    assert (tmp_path / "out" / "metrics.jsonl").exists()


def test_colab_notebook_with_large_data_takes_it_from_drive(tmp_path, machine):
    from tests.colab.notebook_kernel import execute

    desk = Desk(tmp_path)
    with (desk.folder / "train.jsonl").open("a") as rows:
        for number in range(12):
            rows.write(json.dumps({"text": secrets.token_hex(1 << 19), "label": "red", "number": number}) + "\n")
    written = json.loads(desk.run("run", "--backend", "colab", "--notebook", "--json").stdout)
    notebook, archive = map(Path, written["files"])
    nbformat.validate(nbformat.read(notebook, as_version=4))
    assert notebook.stat().st_size < 100_000 < archive.stat().st_size
    short = nbformat.read(notebook, as_version=4)
    short.cells = short.cells[:2]  # the rows are too long to be trained on here
    nbformat.write(short, notebook)
    (tmp_path / "machine" / "drive" / "MyDrive").mkdir(parents=True)
    archive.rename(tmp_path / "machine" / "drive" / "MyDrive" / archive.name)
    execute(notebook, machine, tmp_path / "machine", {})
    laid = tmp_path / "machine" / "content" / "ftlaunch" / "data" / "train.jsonl"
    assert laid.read_bytes() == (desk.folder / "train.jsonl").read_bytes()


def test_colab_notebook_is_for_places_that_have_one(tmp_path):
    told = Desk(tmp_path).run("run", "--backend", "local", "--notebook", code=2)
    assert "--notebook goes with --backend colab" in told.stderr
