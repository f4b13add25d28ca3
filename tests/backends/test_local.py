"""The local place: its supervisor, its staging, what it finds before a start. Real processes throughout."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import SecretStr

from backends import local_supervisor, staged_files
from backends.interface import BackendError, Handle, JobNotFound, Plan, Reason, Resources, State, Status, Submission
from backends.local import Local
from tests.small_disk import fill, mounted
from training_image.errors import InputError
from training_image.spec import Data, Model, Spec, Task

SPEC = Spec(job="a-1", model=Model(id="m"), data=Data(train="train.jsonl"), task=Task(type="completion"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def rows(tmp_path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    return path


def submission(rows: Path, name: str = "a-1", **more) -> Submission:
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    options = {"grace_seconds": 3.0} | more.pop("options", {})
    return Submission(job_name=name, spec=SPEC, files={"train.jsonl": digest}, options=options, **more)


def planned(rows: Path, code: str, **more) -> Plan:
    """The plan of a job whose training is a few lines of Python."""
    plan = Local().plan(submission(rows, **more))
    return plan.model_copy(update={"request": plan.request | {"argv": [sys.executable, "-c", code]}})


def start(rows: Path, code: str, secrets: dict[str, str] | None = None, **more) -> Handle:
    values = {name: SecretStr(value) for name, value in (secrets or {}).items()}
    plan = planned(rows, code, secrets=tuple(values), **more)
    Local().stage(plan, {"train.jsonl": rows})
    return Local().submit(plan, values)


def ended(handle: Handle, seconds: float = 30) -> Status:
    end = time.monotonic() + seconds
    while not (status := Local().status(handle)).state.ended:
        assert time.monotonic() < end, status
        time.sleep(0.05)
    return status


def texts(handle: Handle) -> list[str]:
    return [line.text for line in Local().logs(handle, None)]


def said(handle: Handle, text: str) -> None:
    end = time.monotonic() + 20
    while text not in texts(handle):
        assert time.monotonic() < end, texts(handle)
        time.sleep(0.05)


def state(home: Path, name: str = "a-1") -> dict:
    return json.loads((home / "local" / name / "state.json").read_text())


SLOW = "import time\nprint('began', flush=True)\ntime.sleep(60)"
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLOW}"
SAVING = (
    "import signal, sys, time\n"
    "def save(*_):\n    time.sleep(1)\n    open('saved', 'w').close()\n    sys.exit(143)\n"
    f"signal.signal(signal.SIGTERM, save)\n{SLOW}"
)


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        ("print('done')", State.SUCCEEDED, None),
        ("raise SystemExit(2)", State.FAILED, Reason.BAD_DATA),
        ("raise SystemExit(3)", State.FAILED, Reason.OUT_OF_MEMORY),
        ("raise SystemExit(4)", State.FAILED, Reason.UNKNOWN),
        ("raise SystemExit(143)", State.CANCELLED, Reason.USER),
        ("import os; os.kill(os.getpid(), 9)", State.FAILED, Reason.OUT_OF_MEMORY),
        ("import os; os.abort()", State.FAILED, Reason.UNKNOWN),
    ],
)
def test_the_exit_code_decides(rows, code, state, reason):
    status = ended(start(rows, code))
    assert (status.state, status.reason) == (state, reason)


def test_a_program_that_is_not_there(rows):
    plan = planned(rows, "")
    plan = plan.model_copy(update={"request": plan.request | {"argv": ["/no/such/python"]}})
    Local().stage(plan, {"train.jsonl": rows})
    status = ended(Local().submit(plan, {}))
    assert status.state is State.FAILED
    assert "cannot be started" in status.message


def test_the_error_line_is_the_message(rows):
    code = "print('error: row 3 is broken'); print('  Mend it.'); print('[done] a=1'); raise SystemExit(2)"
    assert ended(start(rows, code)).message == "row 3 is broken. Mend it."


def test_a_killed_training_is_started_again_while_it_makes_checkpoints(rows, home):
    code = (
        "import os, pathlib, time\n"
        "path = pathlib.Path('checkpoints/step')\n"
        "step = int(path.read_text()) + 1 if path.exists() else 1\n"
        "path.write_text(str(step))\n"
        "print('start', step, flush=True)\n"
        "step < 4 and os.kill(os.getpid(), 9)\n"
    )
    handle = start(rows, code)
    assert ended(handle).state is State.SUCCEEDED
    assert [line for line in texts(handle) if line.startswith("start")] == [f"start {step}" for step in (1, 2, 3, 4)]
    assert state(home)["restarts"] == 3


def test_a_training_killed_from_outside_is_started_again(rows, home):
    code = f"import os, pathlib\nif pathlib.Path('checkpoints/x').exists(): raise SystemExit(0)\n{SLOW}"
    handle = start(rows, code)
    said(handle, "began")
    (home / "local" / "a-1" / "checkpoints" / "x").write_text("")
    os.kill(state(home)["training_pid"], signal.SIGKILL)
    assert ended(handle).state is State.SUCCEEDED


def test_a_cancel_lets_the_training_save(rows, home):
    handle = start(rows, SAVING)
    said(handle, "began")
    Local().cancel(handle)
    assert Local().status(handle).state is State.STOPPING
    status = ended(handle)
    assert (status.state, status.reason) == (State.CANCELLED, Reason.USER)
    assert (home / "local" / "a-1" / "saved").exists()
    Local().cancel(handle)
    assert ended(handle) == status


def test_one_that_does_not_stop_is_killed_after_the_grace(rows):
    handle = start(rows, STUBBORN, options={"grace_seconds": 0.5})
    said(handle, "began")
    Local().cancel(handle)
    status = ended(handle)
    assert (status.state, status.native_state) == (State.CANCELLED, "killed by signal 9")


def test_children_of_the_training_are_stopped_as_well(rows):
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).wait()"
    handle = start(rows, code, options={"grace_seconds": 0.5})
    said(handle, "began")
    Local().cancel(handle)
    ended(handle)
    marker = f"{handle.data['folder']}"
    alive = [path for path in Path("/proc").glob("[0-9]*/cwd") if _points(path, marker)]
    assert not alive


def _points(path: Path, folder: str) -> bool:
    try:
        return os.readlink(path) == folder
    except OSError:
        return False


def test_the_time_limit_is_kept_and_told_to_the_training(rows):
    code = (
        f"import os, time\nprint(round(float(os.environ['FTLAUNCH_DEADLINE']) - time.time()) <= 2, flush=True)\n{SLOW}"
    )
    begin = time.monotonic()
    handle = start(rows, code, max_seconds=2)
    status = ended(handle)
    assert (status.state, status.reason) == (State.FAILED, Reason.TIMED_OUT)
    assert time.monotonic() - begin < 10
    assert texts(handle)[0] == "True"


def test_one_that_stops_itself_at_its_deadline_timed_out(rows):
    status = ended(start(rows, "import time; time.sleep(1); raise SystemExit(143)", max_seconds=2))
    assert (status.state, status.reason) == (State.FAILED, Reason.TIMED_OUT)


def test_an_end_is_told_once_the_supervisor_is_gone(rows, home):
    handle = start(rows, "print('done')")
    assert ended(handle).state is State.SUCCEEDED
    with (home / "local" / "a-1" / "supervisor.lock").open() as file:  # as one does that has written, and not gone
        fcntl.flock(file, fcntl.LOCK_EX)
        assert Local().status(handle).state is State.RUNNING
    assert Local().status(handle).state is State.SUCCEEDED


def test_a_killed_supervisor_ends_in_failed_once_the_training_has_saved(rows, home):
    handle = start(rows, SAVING)
    said(handle, "began")
    os.kill(state(home)["pid"], signal.SIGKILL)
    time.sleep(0.2)
    assert Local().status(handle).state is State.STOPPING
    status = ended(handle)
    assert (status.state, status.native_state) == (State.FAILED, "lost")
    assert (home / "local" / "a-1" / "saved").exists()


def test_a_reused_process_id_fools_nobody(rows, home):
    handle = start(rows, SLOW)
    said(handle, "began")
    os.kill(state(home)["pid"], signal.SIGKILL)
    ended(handle)
    path = home / "local" / "a-1" / "state.json"
    path.write_text(json.dumps(state(home) | {"pid": os.getpid(), "training_pid": os.getpid()}))
    assert Local().status(handle).state is State.FAILED
    Local().cancel(handle)  # signals nobody


def test_a_resume_waits_for_what_a_killed_supervisor_left(rows, home):
    code = f"import pathlib\nif pathlib.Path('saved').exists(): raise SystemExit(0)\n{SAVING}"
    handle = start(rows, code)
    said(handle, "began")
    os.kill(state(home)["pid"], signal.SIGKILL)
    end = time.monotonic() + 10
    while not Local().status(handle).state.ended and time.monotonic() < end:
        Local().resume(handle)
        time.sleep(0.05)
    Local().resume(handle)
    assert ended(handle).state is State.SUCCEEDED
    assert state(home)["starts"] == 2


def test_resume_starts_again_with_its_secrets(rows, home, monkeypatch):
    code = "import os, pathlib, sys\nsys.exit(0 if pathlib.Path('go').exists() and os.environ['MY_TOKEN'] else 2)"
    handle = start(rows, code, {"MY_TOKEN": "value"})
    assert ended(handle).state is State.FAILED
    with pytest.raises(InputError, match="MY_TOKEN"):
        Local().resume(handle)
    (home / "local" / "a-1" / "go").touch()
    ring = ModuleType("keyring")
    ring.__spec__ = ModuleSpec("keyring", None)
    ring.get_password = lambda service, name: "value" if (service, name) == ("ftlaunch", "MY_TOKEN") else None
    monkeypatch.setitem(sys.modules, "keyring", ring)
    assert Local().resume(handle) == handle
    assert ended(handle).state is State.SUCCEEDED
    assert Local().resume(handle) == handle
    assert state(home)["starts"] == 2


def test_a_secret_stands_nowhere(rows, home):
    value = "hunter2-hunter2\nits second line\n"
    handle = start(rows, "import os; print('it is', os.environ['MY_TOKEN'])", {"MY_TOKEN": value})
    ended(handle)
    assert texts(handle) == ["it is ***", "***", ""]
    for path in home.rglob("*"):
        for line in value.encode().splitlines():
            assert not path.is_file() or line not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["abc", "abcdef"], "pw=abcdef, abc", "pw=***, ***"),
        (["hf_abc\n"], "Bearer hf_abc", "Bearer ***"),
        (['{\r\n  "key": 12\r\n}\r\n'], "{'a': 1} \"key\": 12", "{'a': 1} ***"),
        (["", " \n"], "a b\n", "a b\n"),
        (["x"], "axe", "a***e"),
    ],
)
def test_each_line_of_a_secret_is_masked(secrets, text, shown):
    assert local_supervisor.masked(text, secrets) == shown


def test_lines_are_lines(rows):
    code = "import os; os.write(1, b'10%\\r50%\\r100%\\nnot \\xff text\\nno end')"
    handle = start(rows, code)
    ended(handle)
    assert texts(handle) == ["100%", "not \ufffd text", "no end"]


def test_a_job_lives_on_without_its_terminal(rows):
    """The supervisor is a session of its own: what kills a terminal's processes leaves it."""
    handle = start(rows, SLOW)
    said(handle, "began")
    pid = json.loads((Path(handle.data["folder"]) / "state.json").read_text())["pid"]
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)
    Local().cancel(handle)
    ended(handle)


def test_staging_keeps_one_copy_and_refuses_what_changed(rows, home):
    plan = planned(rows, "")
    Local().stage(plan, {"train.jsonl": rows})
    other = planned(rows, "", name="b-2")
    Local().stage(other, {"train.jsonl": rows})
    first, second = (home / "local" / name / "data" / "train.jsonl" for name in ("a-1", "b-2"))
    assert os.path.samefile(first, second)
    assert not os.path.samefile(first, rows)
    assert first.stat().st_mode & 0o222 == 0
    third = planned(rows, "", name="c-3").model_copy(update={"inputs": {"train.jsonl": "0" * 64}})
    with pytest.raises(BackendError, match="changed while the job was being submitted"):
        Local().stage(third, {"train.jsonl": rows})


def test_large_files_are_checked_and_rows_are_a_copy(rows, home, monkeypatch):
    monkeypatch.setattr(staged_files, "LINKED_FROM", 1)
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    files = {"train.jsonl": rows, "model/weights": rows}
    staged_files.place(dict.fromkeys(files, digest), files, home / "data")
    with rows.open("a") as file:
        file.write("one more")
    assert os.path.samefile(home / "data" / "model" / "weights", rows)
    assert hashlib.sha256((home / "data" / "train.jsonl").read_bytes()).hexdigest() == digest
    for name in files:
        with pytest.raises(BackendError, match="changed while the job was being submitted"):
            staged_files.place({name: "0" * 64}, files, home / "again")


def test_remove_frees_the_disk_and_keeps_record_and_log(rows, home):
    handle = start(rows, "open('output/result', 'w').close(); print('done')")
    ended(handle)
    Local().remove(handle)
    Local().remove(handle)
    assert not list((home / "files").iterdir())
    assert Local().status(handle).state is State.SUCCEEDED
    assert texts(handle) == ["done"]
    with pytest.raises(BackendError, match="were removed"):
        Local().fetch(handle, home)


def test_remove_and_fetch_wait_for_the_end(rows, tmp_path):
    handle = start(rows, SLOW)
    for verb in (Local().remove, lambda handle: Local().fetch(handle, tmp_path)):
        with pytest.raises(BackendError, match="has not ended"):
            verb(handle)
    Local().cancel(handle)
    ended(handle)


def test_a_job_that_never_was():
    handle = Handle(backend="local", job_name="never", data={})
    for verb in (Local().status, Local().cancel, Local().resume, lambda handle: list(Local().logs(handle, None))):
        with pytest.raises(JobNotFound):
            verb(handle)
    assert Local().find("never") is None
    Local().remove(handle)


def test_submit_before_stage_is_refused(rows):
    with pytest.raises(BackendError, match="not staged"):
        Local().submit(planned(rows, ""), {})


def test_the_training_runs_the_code_as_it_was_submitted(rows, home):
    Local().stage(planned(rows, ""), {"train.jsonl": rows})
    assert (home / "local" / "a-1" / "program" / "training_image" / "__main__.py").is_file()
    assert Local().plan(submission(rows)).request["environment"]["PYTHONPATH"] == str(
        home / "local" / "a-1" / "program"
    )


def test_preflight_finds_too_many_machines_a_missing_python_and_no_gpu(rows):
    plan = Local().plan(submission(rows, resources=Resources(machines=2, gpu="H100"), options={"python": "/no/python"}))
    found = {finding.code: finding for finding in Local().preflight(plan)}
    assert found["machines"].level == found["python"].level == "error"
    if not Path("/proc/driver/nvidia/gpus").exists():
        assert found["gpu"].level == "warning"


def test_preflight_finds_a_full_disk(rows, tmp_path, monkeypatch):
    with mounted(tmp_path / "disk", "1m") as disk:
        monkeypatch.setenv("FTLAUNCH_HOME", str(disk / "home"))
        (finding,) = [found for found in Local().preflight(Local().plan(submission(rows))) if found.code == "disk"]
        assert finding.level == "error"
        assert "FTLAUNCH_HOME" in finding.hint
        fill(disk)
        with pytest.raises(BackendError, match="cannot write"):
            Local().stage(planned(rows, ""), {"train.jsonl": rows})


def test_this_machine_is_offered_free_of_charge():
    (offer,) = Local().offers(None)
    assert (offer.kind, offer.usd_per_hour) == ("free", None)
