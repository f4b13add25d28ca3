"""From the command to the results: crashes, repeats, refusals, secrets. Real processes under the real supervisor."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.launcher.conftest import Command, write_job


def starts(ftlaunch: Command) -> int:
    """How many jobs were started, asked past the store."""
    return len(list((ftlaunch.home / "local").glob("*/state.json")))


def wait_for(what, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def test_runs_to_its_results(ftlaunch, job):
    told = ftlaunch.json("run", job)
    assert told["state"] == "SUCCEEDED"
    assert told["job"].startswith("birds-")
    assert told["metrics"]["train/loss"] == pytest.approx(1 / 3, abs=1e-5)
    folder = Path(told["output"])
    assert folder == ftlaunch.folder / "runs" / told["job"]
    assert json.loads((folder / "result.json").read_text())["job"] == told["job"]
    assert "as submitted" in (folder / "job.yaml").read_text()
    assert {"job", "backend", "state", "reason", "created", "ended", "handle", "estimate_usd", "actual_usd"} <= set(
        told
    )
    assert told["estimate_usd"] is None


def test_bare_command_runs_the_folder_and_shows_table_and_verdict(ftlaunch, job):
    done = ftlaunch("--backend", "scripted", job)
    assert "tuned" in done.stdout
    assert "0.400 to 0.600" in done.stdout
    assert "inconclusive. No clear difference." in done.stdout
    assert "[train] step=3" in done.stderr


def test_without_arguments_the_job_here_is_run(ftlaunch, job):
    here = Command(job, ftlaunch.environment)
    assert "results:" in here().stdout
    nothing = ftlaunch(code=2)
    assert "no ftlaunch.yaml here" in nothing.stderr


def test_the_submitted_job_runs_again_by_itself(ftlaunch, job):
    told = ftlaunch.json("run", job, "--set", "train.epochs=2")
    again = ftlaunch.json("run", Path(told["output"]) / "job.yaml", "--reuse")
    assert again["job"] == told["job"]


def test_json_is_all_there_is_on_standard_output(ftlaunch, job):
    for arguments in (("run", job, "--dry-run"), ("run", job), ("jobs",), ("status", "birds"), ("fetch", "birds")):
        ftlaunch.json(*arguments)


def test_dry_run_is_what_is_sent(ftlaunch, job):
    dry = ftlaunch.json("run", job, "--dry-run")
    assert set(dry) == {"job", "backend", "request", "unresolved", "image", "inputs", "estimate"}
    assert starts(ftlaunch) == 0
    told = ftlaunch.json("run", job)
    assert told["job"] == dry["job"]
    start = json.loads((ftlaunch.home / "local" / told["job"] / "start.json").read_text())
    assert start["argv"] == dry["request"]["argv"]


def test_an_ended_job_is_run_again_as_the_next_attempt_and_reuse_shows_the_old(ftlaunch, job):
    first = ftlaunch.json("run", job)["job"]
    assert ftlaunch.json("run", job, "--reuse")["job"] == first
    second = ftlaunch.json("run", job)["job"]
    assert second != first
    assert [each["job"] for each in ftlaunch.json("jobs")] == [second, first]


def test_changed_data_is_another_job(ftlaunch, job):
    before = ftlaunch.json("run", job, "--dry-run")["job"]
    (job / "rows.jsonl").write_text('{"text": "a", "label": "c"}\n')
    assert ftlaunch.json("run", job, "--dry-run")["job"] != before


def test_a_running_job_is_followed_and_not_started_twice(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=30)
    first = ftlaunch.json("run", job, "--detach")
    assert first["state"] in ("STARTING", "RUNNING")
    second = ftlaunch.json("run", job)
    assert (second["job"], second["state"]) == (first["job"], "SUCCEEDED")
    assert starts(ftlaunch) == 1


def test_two_launches_at_once_are_one_job(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=10)
    processes = [ftlaunch.start("run", job, "--json") for _ in range(4)]
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
    job = write_job(ftlaunch.folder / "birds", steps=40)
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
    assert wait_for(lambda: ftlaunch.json("jobs", "--reconcile")[0]["state"] == "SUCCEEDED")
    (job_,) = [each for each in ftlaunch.json("jobs") if each["backend"] == "scripted"]
    assert Path(ftlaunch.json("fetch", job_["job"])["output"]).is_dir()


def test_a_lost_answer_is_asked_for_before_the_job_counts_as_refused(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", trouble="lost-answer")
    assert ftlaunch.json("run", job)["state"] == "SUCCEEDED"
    assert starts(ftlaunch) == 1


def test_a_refused_submit_is_told_and_recorded(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", trouble="credentials")
    done = ftlaunch("run", job, code=3)
    assert "your token has expired" in done.stderr
    assert "log in again" in done.stderr
    (record,) = ftlaunch.json("jobs")
    assert (record["state"], record["reason"]) == ("FAILED", "CREDENTIALS")


def test_preflight_refuses_before_anything_is_recorded(ftlaunch):
    done = ftlaunch("run", write_job(ftlaunch.folder / "birds", trouble="refuse"), code=3)
    assert "no quota for that; ask for some" in done.stderr
    assert ftlaunch.json("jobs") == []


def test_a_missing_extra_is_named(ftlaunch):
    done = ftlaunch("run", write_job(ftlaunch.folder / "birds", trouble="no-package"), code=2)
    assert "pip install 'ftlaunch[scripted-extra]'" in done.stderr


def test_an_unresolved_plan_is_shown_but_never_submitted(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", needs_role=True)
    dry = ftlaunch.json("run", job, "--dry-run")
    assert dry["request"]["role"] == "<scripted.role>"
    assert dry["unresolved"] == [{"path": "backends.scripted.role", "hint": "set backends.scripted.role"}]
    done = ftlaunch("run", job, code=2)
    assert "set backends.scripted.role" in done.stderr
    assert starts(ftlaunch) == 0
    (ftlaunch.home / "config.yaml").write_text("backends:\n  scripted:\n    role: mine\n")
    assert ftlaunch.json("run", job, "--dry-run")["unresolved"] == []
    (ftlaunch.home / "config.yaml").unlink()
    assert ftlaunch.json("run", job, SCRIPTED_ROLE="told")["state"] == "SUCCEEDED"


def test_dropped_connections_lose_and_repeat_no_line(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=12, do="drops")
    done = ftlaunch("run", job)
    steps = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("[train]")]
    assert steps == [f"step={step}" for step in range(1, 13)]
    assert "trying again" in done.stderr


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


@pytest.mark.parametrize(
    ("do", "reason", "code"), [("bad", "BAD_DATA", 2), ("memory", "OUT_OF_MEMORY", 1), ("nothing", "UNKNOWN", 1)]
)
def test_a_failed_job_has_its_reason(ftlaunch, do, reason, code):
    told = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", do=do), code=code)
    assert (told["state"], told["reason"], told["output"]) == ("FAILED", reason, None)
    assert ftlaunch.json("status", told["job"], code=1)["reason"] == reason
    if do == "bad":
        assert told["message"] == "data/train.jsonl:3: broken row Mend it."
        ftlaunch("fetch", told["job"], code=1)


def test_a_killed_training_goes_on_from_its_checkpoint(ftlaunch):
    told = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", do="killed", steps=5))
    assert told["state"] == "SUCCEEDED"
    log = ftlaunch("logs", told["job"]).stdout
    assert [line.split()[1] for line in log.splitlines() if line.startswith("[train]")] == [
        f"step={step}" for step in (1, 2, 3, 4, 5)
    ]


def test_cancel_saves_and_what_it_saved_is_fetched_and_resumed(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", steps=60)
    name = ftlaunch.json("run", job, "--detach")["job"]
    wait_for(lambda: "step=5" in ftlaunch("logs", name).stdout)
    ftlaunch("cancel", name[:10])
    wait_for(lambda: ftlaunch.start("status", name).wait() == 5)
    ftlaunch("cancel", name)
    partial = Path(ftlaunch.json("fetch", name)["output"])
    assert (partial / "adapter" / "adapter_model.safetensors").exists()
    told = ftlaunch.json("run", job, "--resume")
    assert (told["job"], told["state"]) == (name, "SUCCEEDED")
    assert Path(told["output"]) == partial
    log = ftlaunch("logs", name).stdout
    assert [line for line in log.splitlines() if line.startswith("[train] step=1 ")].__len__() == 1


def test_cancel_of_an_intent(ftlaunch, job):
    with ftlaunch.start("run", job, environment={"SCRIPTED_DIE": "before-submit"}) as process:
        process.communicate(timeout=30)
    ftlaunch("cancel", "birds")
    assert ftlaunch.json("status", "birds", code=5)["state"] == "CANCELLED"


def test_follow_prints_the_log_and_ends_with_the_job(ftlaunch):
    name = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", steps=20), "--detach")["job"]
    done = ftlaunch("logs", "-f", name)
    assert done.stdout.count("[train]") == 20


def test_secrets_reach_the_job_and_nothing_else(ftlaunch):
    job = write_job(ftlaunch.folder / "birds", top={"secrets": ["MY_TOKEN"]})
    done = ftlaunch("run", job, code=2)
    assert "no value for the secret MY_TOKEN" in done.stderr
    dry = ftlaunch.json("run", job, "--dry-run")
    assert dry["request"]["secrets"] == {"MY_TOKEN": "***"}
    value = "hunter2-0123456789"
    done = ftlaunch("run", job, MY_TOKEN=value)
    assert "the token is ***" in done.stderr
    assert value not in done.stdout + done.stderr
    for path in [*ftlaunch.home.rglob("*"), *ftlaunch.folder.rglob("*")]:
        assert not path.is_file() or value.encode() not in path.read_bytes(), path


def test_an_output_folder_that_exists_is_refused_before_the_start(ftlaunch, job):
    (ftlaunch.folder / "out").mkdir()
    (ftlaunch.folder / "out" / "mine.txt").write_text("mine")
    done = ftlaunch("run", job, "--output", "out", code=2)
    assert "exists already" in done.stderr
    assert starts(ftlaunch) == 0
    assert (ftlaunch.folder / "out" / "mine.txt").read_text() == "mine"


def test_an_empty_output_folder_is_taken(ftlaunch, job):
    (ftlaunch.folder / "out").mkdir()
    assert ftlaunch.json("run", job, "--output", "out")["output"] == str(ftlaunch.folder / "out")


def test_a_folder_that_cannot_be_written_is_refused_before_the_start(ftlaunch, job):
    done = ftlaunch("run", job, "--output", "/proc/out", code=2)
    assert "cannot write the output folder /proc/out" in done.stderr
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
    part = ftlaunch.folder / "runs" / f".{name}.part"
    (part / "adapter").mkdir(parents=True)
    (part / "adapter" / "adapter_model.safetensors").write_text("wei")
    told = ftlaunch.json("fetch", name)
    assert (Path(told["output"]) / "adapter" / "adapter_model.safetensors").read_text() == "weights"
    assert not part.exists()


def test_an_unknown_job_and_an_ambiguous_one(ftlaunch, job):
    assert "there is no job 'nope'" in ftlaunch("status", "nope", code=2).stderr
    ftlaunch("run", job)
    ftlaunch("run", job)
    done = ftlaunch("status", "birds-", code=2)
    assert "begins the names of 2 jobs" in done.stderr


def test_a_job_that_its_place_forgot_is_not_succeeded(ftlaunch):
    name = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", steps=200), "--detach")["job"]
    folder = ftlaunch.home / "local" / name
    ftlaunch("cancel", name)
    wait_for(lambda: json.loads((folder / "state.json").read_text())["ended"])
    (folder / "state.json").unlink()
    with sqlite3.connect(ftlaunch.home / "jobs.db") as store:
        store.execute("UPDATE jobs SET state = 'RUNNING', ended = NULL")
    assert ftlaunch.json("status", name, code=6)["state"] == "UNKNOWN"


def test_backends_lists_all_and_names_the_broken_plug_in(ftlaunch):
    done = ftlaunch("backends")
    assert "local" in done.stdout
    assert "no_such_module" in done.stdout
    told = {each["backend"]: each for each in ftlaunch.json("backends")}
    assert told["scripted"]["capabilities"]["resume"] is True
    assert "error" in told["broken"]


def test_a_broken_plug_in_is_fatal_only_to_its_users(ftlaunch, job):
    done = ftlaunch("run", job, "--backend", "broken", code=2)
    assert "cannot be loaded" in done.stderr
    done = ftlaunch("run", job, "--backend", "scriptd", code=2)
    assert "did you mean 'scripted'?" in done.stderr


def test_a_slip_in_a_command_is_not_taken_for_a_job(ftlaunch):
    assert "did you mean `ftlaunch status`?" in ftlaunch("staus", code=2).stderr


def test_a_bare_argument_equal_to_a_command_is_the_command(ftlaunch):
    write_job(ftlaunch.folder / "jobs")
    assert ftlaunch.json("jobs") == []
    assert "results:" in ftlaunch("./jobs").stdout


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


def test_no_space_for_the_results_is_told_and_they_are_kept(ftlaunch, job, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=16k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        (disk / "filler").write_bytes(b"0" * 8192)
        done = ftlaunch("run", job, "--output", disk / "out", code=2)
        assert "no space left" in done.stderr
        assert "its results are kept" in done.stderr
    finally:
        os.system(f"umount {disk}")
    assert Path(ftlaunch.json("fetch", "birds", "--output", "out")["output"]).is_dir()


def test_a_place_with_a_bill_gets_no_job_that_cannot_be_trained_on(ftlaunch, job):
    (job / "rows.jsonl").write_text('{"text": "a", "label": "b"}\nno json\n')
    done = ftlaunch("run", job, "--backend", "billed", code=2)
    assert "the job cannot be trained on" in done.stderr
    assert "rows.jsonl: line 2 is not valid JSON" in done.stderr
    assert ftlaunch.json("jobs") == []


def test_a_secret_may_come_from_the_keyring(ftlaunch, tmp_path):
    job = write_job(ftlaunch.folder / "birds", top={"secrets": ["MY_TOKEN"]})
    (tmp_path / "ring").mkdir()
    ring = "def get_password(service, name): return f'{service}-{name}-value'\n"
    (tmp_path / "ring" / "keyring.py").write_text(ring)
    path = os.pathsep.join([str(tmp_path / "ring"), ftlaunch.environment["PYTHONPATH"]])
    assert "the token is ***" in ftlaunch("run", job, PYTHONPATH=path).stderr
