"""Where the results land: folders in the way, full disks, broken-off fetches, expired credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launcher.conftest import starts, wait_for, write_job
from tests.small_disk import mounted


def test_an_output_folder_that_exists_is_refused_before_the_start(ftlaunch, job):
    (ftlaunch.folder / "out").mkdir()
    (ftlaunch.folder / "out" / "mine.txt").write_text("mine")
    done = ftlaunch("run", job, "--output", "out", code=2)
    assert "exists already" in done.stderr
    assert starts(ftlaunch) == 0
    assert (ftlaunch.folder / "out" / "mine.txt").read_text() == "mine"


def test_what_a_place_does_not_free_after_the_fetch_is_told(ftlaunch):
    done = ftlaunch("run", write_job(ftlaunch.folder / "birds", do="held"))
    assert "scripted still holds what birds-" in done.stderr
    assert "it does not let go" in done.stderr


def test_an_empty_output_folder_is_taken(ftlaunch, job):
    (ftlaunch.folder / "out").mkdir()
    assert ftlaunch.json("run", job, "--output", "out")["output"] == str(ftlaunch.folder / "out")


def test_a_folder_that_cannot_be_written_is_refused_before_the_start(ftlaunch, job, tmp_path):
    with mounted(tmp_path / "disk", "1m", "ro") as disk:
        done = ftlaunch("run", job, "--output", disk / "out", code=2)
        assert f"cannot write the output folder {disk / 'out'}: Read-only file system" in done.stderr
    assert starts(ftlaunch) == 0


def test_a_second_fetch_elsewhere_copies_what_is_here(ftlaunch, job):
    told = ftlaunch.json("run", job)
    other = ftlaunch.json("fetch", told["job"], "--output", "other")["output"]
    assert {path.name for path in Path(other).iterdir()} == {path.name for path in Path(told["output"]).iterdir()}


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("mismatch", "do not match their checksums: result.json"),
        ("outside", "do not match their checksums: ../../evil"),
        ("pickle", "weights that are not safetensors"),
    ],
)
def test_results_that_cannot_be_trusted_do_not_arrive(ftlaunch, do, said):
    done = ftlaunch("run", write_job(ftlaunch.folder / "birds", do=do), code=3)
    assert said in done.stderr
    assert "ftlaunch fetch" in done.stderr
    assert not [path for path in (ftlaunch.folder / "runs").iterdir() if not path.name.startswith(".")]


def test_a_broken_off_fetch_is_completed(ftlaunch, job):
    name = ftlaunch.json("run", job, "--detach")["job"]
    wait_for(lambda: ftlaunch.start("status", name).wait() == 0)
    ended = ftlaunch.json("status", name)["ended"]
    part = ftlaunch.folder / "runs" / f".{name}-{ended:.0f}.part"
    (part / "adapter").mkdir(parents=True)
    (part / "adapter" / "adapter_model.safetensors").write_text("wei")
    told = ftlaunch.json("fetch", name)
    assert (Path(told["output"]) / "adapter" / "adapter_model.safetensors").read_text() == "weights"
    assert not part.exists()


def test_what_broke_off_of_another_job_stays_out(ftlaunch):
    ftlaunch("run", write_job(ftlaunch.folder / "birds", do="mismatch"), "--output", "out", code=3)
    (part,) = ftlaunch.folder.glob(".*.part")
    (part / "predictions.jsonl").write_text("of birds")
    told = ftlaunch.json("run", write_job(ftlaunch.folder / "fish"), "--output", "out")
    assert not (Path(told["output"]) / "predictions.jsonl").exists()


def test_no_space_for_the_results_is_told_and_they_are_kept(ftlaunch, job, tmp_path):
    with mounted(tmp_path / "disk", "16k") as disk:
        (disk / "filler").write_bytes(b"0" * 8192)
        done = ftlaunch("run", job, "--output", disk / "out", code=2)
        assert "no space left" in done.stderr
        assert "its results are kept" in done.stderr
    assert Path(ftlaunch.json("fetch", "birds", "--output", "out")["output"]).is_dir()


def test_an_ended_job_is_told_and_fetched_without_credentials(ftlaunch, job):
    told = ftlaunch.json("run", job)
    for command in ("status", "fetch"):
        assert ftlaunch.json(command, told["job"], SCRIPTED_EXPIRED="1")["state"] == "SUCCEEDED"
    assert "[train] step=3" in ftlaunch("logs", told["job"], SCRIPTED_EXPIRED="1").stdout


def test_a_live_job_without_credentials_is_told_as_last_seen(ftlaunch):
    name = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", steps=100), "--detach")["job"]
    done = ftlaunch("status", name, code=3, SCRIPTED_EXPIRED="1")
    assert "your token has expired" in done.stderr
    ftlaunch("cancel", name)
