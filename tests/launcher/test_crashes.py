"""Killed launchers and trainings, broken connections, lost records: nothing is lost and nothing is started twice."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.launcher.conftest import starts, wait_for, write_job


def cancelled(ftlaunch, environment=None, **options) -> tuple[Path, str]:
    """A job file, and its job that was cancelled in the middle."""
    job = write_job(ftlaunch.folder / "birds", **options)
    name = ftlaunch.json("run", job, "--detach", **(environment or {}))["job"]
    wait_for(lambda: "step=5" in ftlaunch("logs", name).stdout, 60)
    ftlaunch("cancel", name)
    wait_for(lambda: ftlaunch.start("status", name).wait() == 5, 60)
    return job, name


def test_two_launches_at_once_are_one_job(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=10)
    processes = [ftlaunch.start("run", job, "--json") for _ in range(6)]
    told = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert {each["state"] for each in told} == {"SUCCEEDED"}
    assert len({each["job"] for each in told}) == 1
    assert len({each["output"] for each in told}) == 1
    assert starts(ftlaunch) == 1


@pytest.mark.parametrize("moment", ["before-submit", "after-submit"])
def test_a_launcher_killed_around_the_submit_loses_and_doubles_nothing(ftlaunch, job, moment):
    with ftlaunch.start("run", job, environment={"SCRIPTED_DIE": moment}) as process:
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    intent = ftlaunch.json("jobs")[0]
    assert intent["handle"] is None
    told = ftlaunch.json("run", job)
    assert (told["job"], told["state"]) == (intent["job"], "SUCCEEDED")
    assert starts(ftlaunch) == 1


def test_a_launcher_killed_while_it_watches_leaves_the_job_running(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=160)
    with ftlaunch.start("run", job) as process:
        wait_for(lambda: starts(ftlaunch))
        time.sleep(0.3)
        process.kill()
        process.communicate()
    name = ftlaunch.json("jobs")[0]["job"]
    assert ftlaunch.json("status", name, code=4)["state"] == "RUNNING"
    assert ftlaunch.json("run", job)["job"] == name
    assert ftlaunch.json("status", name)["state"] == "SUCCEEDED"


def test_reconcile_finds_what_the_store_lost(ftlaunch, job):
    name = ftlaunch.json("run", job)["job"]
    for path in ftlaunch.home.glob("jobs.db*"):
        path.unlink()
    assert ftlaunch.json("jobs") == []
    found = ftlaunch.json("jobs", "--reconcile")
    assert name in {each["job"] for each in found}


def test_reconcile_finds_a_started_intent(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=1)
    with ftlaunch.start("run", job, environment={"SCRIPTED_DIE": "after-submit"}) as process:
        process.communicate(timeout=30)

    def succeeded():
        """Other places on this machine may hold jobs of others."""
        found = [each for each in ftlaunch.json("jobs", "--reconcile") if each["backend"] == "scripted"]
        return [each["job"] for each in found if each["state"] == "SUCCEEDED"]

    (name,) = wait_for(succeeded)
    assert Path(ftlaunch.json("fetch", name)["output"]).is_dir()


def test_a_lost_answer_is_asked_for_before_the_job_counts_as_refused(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", trouble="lost-answer")
    assert ftlaunch.json("run", job)["state"] == "SUCCEEDED"
    assert starts(ftlaunch) == 1


def test_dropped_connections_lose_and_repeat_no_line(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=12, do="drops")
    done = ftlaunch("run", job)
    steps = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("[train]")]
    assert steps == [f"step={step}" for step in range(1, 13)]
    assert "trying again" in done.stderr


def test_a_killed_training_goes_on_from_its_checkpoint(ftlaunch):
    told = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", do="killed", steps=5))
    assert told["state"] == "SUCCEEDED"
    log = ftlaunch("logs", told["job"]).stdout
    assert [line.split()[1] for line in log.splitlines() if line.startswith("[train]")] == [
        f"step={step}" for step in (1, 2, 3, 4, 5)
    ]


def test_cancel_saves_and_what_it_saved_is_fetched_and_resumed(ftlaunch):
    job, name = cancelled(ftlaunch, steps=160)
    ftlaunch("cancel", name[:10])
    partial = Path(ftlaunch.json("fetch", name)["output"])
    assert (partial / "adapter" / "adapter_model.safetensors").exists()
    told = ftlaunch.json("run", job, "--resume")
    assert (told["job"], told["state"]) == (name, "SUCCEEDED")
    assert Path(told["output"]) == partial
    log = ftlaunch("logs", name).stdout
    assert [line for line in log.splitlines() if line.startswith("[train] step=1 ")].__len__() == 1


def test_what_is_kept_for_a_resume_goes_once_a_later_attempt_has_succeeded(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=2000)
    name = ftlaunch.json("run", job, "--detach")["job"]
    wait_for(lambda: "step=5" in ftlaunch("logs", name).stdout)
    ftlaunch("cancel", name)
    wait_for(lambda: ftlaunch.start("status", name).wait() == 5)
    ftlaunch("fetch", name)
    write_job(ftlaunch.folder / "birds", steps=2)  # how the place goes about it is no part of the job's content
    kept = ftlaunch.home / "local" / name / "checkpoints"
    assert any(kept.iterdir())
    later = ftlaunch.json("run", job)
    assert later["job"] != name
    assert not kept.exists()
    assert ftlaunch.json("status", name, code=5)["output"]


def test_cancel_of_an_intent(ftlaunch, job):
    with ftlaunch.start("run", job, environment={"SCRIPTED_DIE": "before-submit"}) as process:
        process.communicate(timeout=30)
    ftlaunch("cancel", "birds")
    assert ftlaunch.json("status", "birds", code=5)["state"] == "CANCELLED"


def test_cancel_while_the_files_are_sent_starts_nothing(ftlaunch, job):
    with ftlaunch.start("run", job, environment={"SCRIPTED_UPLOAD": "4"}) as launcher:
        wait_for(lambda: "a long upload" in launcher.stderr.readline())
        assert ftlaunch.json("cancel", "birds")["state"] == "CANCELLED"
        _, errors = launcher.communicate(timeout=30)
    assert (launcher.returncode, starts(ftlaunch)) == (3, 0)
    assert "was cancelled before it was started" in errors
    assert ftlaunch.json("status", "birds", code=5)["state"] == "CANCELLED"


def test_a_launcher_killed_after_a_resume_loses_and_doubles_nothing(ftlaunch):
    job, name = cancelled(ftlaunch, steps=160)
    with ftlaunch.start("run", job, "--resume", environment={"SCRIPTED_DIE": "after-resume"}) as process:
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert ftlaunch.json("status", name, code=4)["state"] == "RUNNING"
    assert ftlaunch.json("run", job)["job"] == name
    assert starts(ftlaunch) == 1


def test_a_lost_answer_to_a_resume_is_asked_for(ftlaunch):
    job, name = cancelled(ftlaunch, steps=160)
    told = ftlaunch.json("run", job, "--resume", SCRIPTED_LOSES="resume")
    assert (told["job"], told["state"]) == (name, "SUCCEEDED")


def test_a_resume_without_its_secret_changes_nothing(ftlaunch):
    job, name = cancelled(ftlaunch, steps=160, top={"secrets": ["MY_TOKEN"]}, environment={"MY_TOKEN": "t0k3n"})
    assert "MY_TOKEN" in ftlaunch("run", job, "--resume", code=2).stderr
    assert ftlaunch.json("run", job, "--resume", MY_TOKEN="t0k3n")["job"] == name


def test_the_log_of_a_resumed_job_is_all_of_it(ftlaunch):
    job, name = cancelled(ftlaunch, steps=400)
    ftlaunch("fetch", name)
    before = ftlaunch("logs", name).stdout
    ftlaunch("run", job, "--resume", "--detach")
    wait_for(lambda: len(ftlaunch("logs", name).stdout) > len(before))
    ftlaunch("cancel", name)
    wait_for(lambda: ftlaunch.start("status", name).wait() == 5, 60)
    assert ftlaunch("logs", name).stdout.count("stopped and saved") == 2


def test_a_job_that_reconcile_found_can_be_run_again(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", do="memory")
    name = ftlaunch.json("run", job, code=1)["job"]
    for path in ftlaunch.home.glob("jobs.db*"):
        path.unlink()
    ftlaunch("jobs", "--reconcile")
    assert ftlaunch.json("run", job, code=1)["job"] == name
    assert ftlaunch.json("run", job, code=1)["job"] != name


def test_a_job_that_its_place_forgot_is_not_succeeded(ftlaunch):
    name = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", steps=200), "--detach")["job"]
    folder = ftlaunch.home / "local" / name
    ftlaunch("cancel", name)
    wait_for(lambda: json.loads((folder / "state.json").read_text())["ended"])
    (folder / "state.json").unlink()
    with sqlite3.connect(ftlaunch.home / "jobs.db") as store:
        store.execute("UPDATE jobs SET state = 'RUNNING', ended = NULL")
    assert ftlaunch.json("status", name, code=6)["state"] == "UNKNOWN"


def test_ctrl_c_before_anything_is_started_ends_it_quietly(ftlaunch, job):
    with ftlaunch.start("run", job, environment={"SCRIPTED_PAUSE": "1"}) as process:
        assert process.stderr.readline() == "the place is being looked at\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.strip()) == (130, "interrupted")
    assert starts(ftlaunch) == 0
    assert ftlaunch.json("run", job)["state"] == "SUCCEEDED"


def test_ctrl_c_without_a_terminal_detaches(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=60)
    with ftlaunch.start("run", job) as process:
        wait_for(lambda: starts(ftlaunch))
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "ftlaunch logs -f birds-" in errors
    assert ftlaunch.json("run", job)["state"] == "SUCCEEDED"
    assert starts(ftlaunch) == 1
