"""From the command to the results: repeats, refusals, secrets. Real processes under the real supervisor."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.store import Store
from tests.launcher.conftest import Command, starts, write_job


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


def test_the_documents_have_what_the_design_names(ftlaunch, job):
    listed = {"job", "backend", "state", "reason", "created", "ended", "handle", "estimate_usd", "actual_usd"}
    status = listed | {"native_state", "message", "billable_seconds", "metrics"}
    told = ftlaunch.json("run", job)
    assert set(told) >= status | {"output"}
    (one,) = ftlaunch.json("jobs")
    assert set(one) == listed
    assert set(ftlaunch.json("status", told["job"])) >= status
    assert set(ftlaunch.json("fetch", told["job"])) >= status | {"output"}
    assert set(ftlaunch.json("run", job, "--detach")) >= status


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


def test_a_job_that_nobody_follows_tells_its_metrics_and_keeps_its_lines(ftlaunch):
    name = ftlaunch.json("run", write_job(ftlaunch.folder / "birds"), "--detach")["job"]
    told = {"ended": None, "metrics": {}}
    while told["ended"] is None and not told["metrics"]:
        with ftlaunch.start("status", name, "--json") as process:
            told = json.loads(process.communicate()[0])
    assert "train/loss" in told["metrics"]
    assert told["links"] == {"mlflow": f"http://127.0.0.1:5000/#/runs/{name}"}
    store = Store(ftlaunch.home)
    assert store.get(name).cursor is None  # the next to follow is shown all lines
    store.close()


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
    config = str(ftlaunch.home / "config.yaml")
    assert f"for all jobs, in {config}:\n  backends.scripted.role: set" in ftlaunch("run", job, "--dry-run").stdout
    done = ftlaunch("run", job, code=2)
    assert "set backends.scripted.role" in done.stderr
    assert config in done.stderr
    assert starts(ftlaunch) == 0
    (ftlaunch.home / "config.yaml").write_text("backends:\n  scripted:\n    role: mine\n")
    assert ftlaunch.json("run", job, "--dry-run")["unresolved"] == []
    (ftlaunch.home / "config.yaml").unlink()
    assert ftlaunch.json("run", job, SCRIPTED_ROLE="told")["state"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("do", "reason", "code"), [("bad", "BAD_DATA", 2), ("memory", "OUT_OF_MEMORY", 1), ("nothing", "UNKNOWN", 1)]
)
def test_a_failed_job_has_its_reason(ftlaunch, do, reason, code):
    told = ftlaunch.json("run", write_job(ftlaunch.folder / "birds", do=do), code=code)
    assert (told["state"], told["reason"], told["output"]) == ("FAILED", reason, None)
    assert ftlaunch.json("status", told["job"], code=1)["reason"] == reason
    if do == "bad":
        assert told["message"] == "data/train.jsonl:3: broken row. Mend it."
        ftlaunch("fetch", told["job"], code=1)


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


def test_an_unknown_job_and_an_ambiguous_one(ftlaunch, job):
    assert "there is no job 'nope'" in ftlaunch("status", "nope", code=2).stderr
    ftlaunch("run", job)
    ftlaunch("run", job)
    done = ftlaunch("status", "birds-", code=2)
    assert "begins the names of 2 jobs" in done.stderr


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


def test_an_option_without_its_value_is_told(ftlaunch):
    assert "'--backend' requires an argument" in ftlaunch("--backend", code=2).stderr


def test_a_slip_in_a_command_is_not_taken_for_a_job(ftlaunch):
    assert "did you mean `ftlaunch status`?" in ftlaunch("staus", code=2).stderr


def test_a_bare_argument_equal_to_a_command_is_the_command(ftlaunch):
    write_job(ftlaunch.folder / "jobs")
    assert ftlaunch.json("jobs") == []
    assert "results:" in ftlaunch("./jobs").stdout


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


def test_a_machine_without_a_keyring_says_what_to_do(ftlaunch, tmp_path):
    """As the package keyring does on a server."""
    job = write_job(ftlaunch.folder / "birds", top={"secrets": ["MY_TOKEN"]})
    (tmp_path / "keyring").mkdir()
    (tmp_path / "keyring" / "errors.py").write_text("class KeyringError(Exception): pass\n")
    ring = "from . import errors\ndef get_password(service, name): raise errors.KeyringError('no backend')\n"
    (tmp_path / "keyring" / "__init__.py").write_text(ring)
    path = os.pathsep.join([str(tmp_path), ftlaunch.environment["PYTHONPATH"]])
    told = ftlaunch("run", job, code=2, PYTHONPATH=path).stderr
    assert "no value for the secret MY_TOKEN" in told
    assert "export MY_TOKEN=" in told
