"""What Colab may do to a job, and what is left then: no machine without a job, and none that is not ours touched."""

import json
import time

import pytest

from backends import colab_job, colab_session, colab_tool
from backends.colab import FRESH, Colab
from backends.conformance.jobs import Watch, prepare, start
from backends.interface import BackendError, Reason, Resources, State
from tests.colab.harness import OPTIONS
from tests.colab.walking import Walk, kill

LONG = 5000
"""Steps that last longer than a few calls of Google's tool, however fast the machine is."""


@pytest.fixture(autouse=True)
def no_machine_is_left(colab):
    """What a failed test leaves must not fail the next one."""
    yield
    for left in colab.assigned():
        left.take_away()


def job(harness, kind, **options):
    """A job of the suite's, with options of its own."""
    made = prepare(harness, kind, steps=LONG)
    submission = made.submission.model_copy(update={"options": made.submission.options | options})
    return type(made)(submission, harness.fresh().plan(submission), made.files)


@pytest.mark.parametrize("answer_lost", [False, True])
def test_colab_substituted_gpu_is_refused(harness, colab, monkeypatch, answer_lost):
    monkeypatch.setattr(colab, "substitute", "L4")
    with colab.trouble(answer_lost=answer_lost), pytest.raises(BackendError) as error:
        start(harness, job(harness, f"other{answer_lost:d}"))
    assert error.value.reason == Reason.NO_CAPACITY
    assert "gave NVIDIA L4 where T4 was asked for" in error.value.message
    assert "substitute" in error.value.hint
    assert colab.assigned() == []


def test_colab_out_of_units_takes_the_machine_and_refuses_another(harness, colab, monkeypatch):
    """A substitute is taken where that is allowed, and said; it is lost with the last unit."""
    monkeypatch.setattr(colab, "substitute", "L4")
    handle = start(harness, job(harness, "units", substitute=True))
    running = Watch(harness, handle).look()
    assert running.message == "on NVIDIA L4 instead of T4"
    balance = colab.balance
    colab.run_out()
    end = Watch(harness, handle)
    end.to_end()
    assert (end.trail[-1].state, end.trail[-1].reason) == (State.FAILED, Reason.SPOT_INTERRUPTED)
    found = [each.code for each in Colab.create().preflight(job(harness, "plan").plan) if each.level != "error"]
    assert found == ["units"]
    monkeypatch.setattr(colab, "free", False)
    with pytest.raises(BackendError) as error:
        harness.fresh().resume(handle)
    assert error.value.reason == Reason.QUOTA
    assert harness.fresh().status(handle).reason == Reason.SPOT_INTERRUPTED
    assert colab.assigned() == []
    colab.balance = balance


def test_colab_free_machine_is_refused_while_there_are_units(harness, colab, monkeypatch):
    submission = prepare(harness, "free").submission
    plan = Colab.create().plan(submission.model_copy(update={"resources": Resources(machine="T4 (free)")}))
    [error] = [each for each in Colab.create().preflight(plan) if each.level == "error"]
    assert (error.code, "compute units" in error.message) == ("units", True)
    monkeypatch.setattr(colab, "balance", 0.0)
    assert {each.level for each in Colab.create().preflight(plan)} == {"note"}


def test_colab_machine_whose_answer_was_lost_is_found_and_no_other_touched(harness, colab):
    """The user's own machine, opened in the browser, has files; ours is empty, and came with the call."""
    own = colab.open_elsewhere()
    own.container.exec_run(["touch", "/content/work.ipynb"])
    with colab.trouble(answer_lost=True):
        handle = start(harness, job(harness, "lostanswer"))
    assert len(colab.assigned()) == 2
    colab_job.sessions().write_text("{}")  # the tool's own note of it is lost as well, as after a 401
    time.sleep(FRESH + 0.1)
    assert harness.fresh().status(handle).state in (State.STARTING, State.RUNNING)
    harness.fresh().cancel(handle)
    watch = Watch(harness, handle)
    watch.to_end()
    assert watch.trail[-1].state == State.CANCELLED
    assert colab.assigned() == [own]
    own.take_away()


def test_colab_machine_that_does_not_stop_is_told_and_given_back_by_the_next_fetch(harness, colab, monkeypatch):
    monkeypatch.setattr(colab_session, "STOP_PAUSES", (0.1, 0.4))
    monkeypatch.setattr(colab_tool, "PAUSES", (0.05, 0.15, 0.4))
    handle = start(harness, job(harness, "held"))
    harness.fresh().cancel(handle)
    with colab.trouble(held=True):
        watch = Watch(harness, handle)
        watch.to_end()
        assert watch.trail[-1].state == State.CANCELLED
        assert "could not be given back" in watch.trail[-1].message
        assert "jobs --reconcile" in watch.trail[-1].message
        with pytest.raises(BackendError, match="Internal Server Error"):
            harness.fresh().release(handle)
    assert len(colab.assigned()) == 1
    harness.fresh().release(handle)
    assert colab.assigned() == []


def test_colab_launcher_killed_while_it_takes_a_machine(colab, tmp_path):
    walk = Walk(tmp_path)
    before = set(colab.machines)
    with walk.start("run", "--yes") as launcher:
        walk.until(lambda: set(colab.machines) - before)
        kill(launcher)
    walk.run("jobs", "--reconcile")
    [machine] = [each for name, each in colab.machines.items() if name not in before]
    assert machine.job() is None
    assert colab.assigned() == []


def test_colab_machine_is_not_forgotten_while_the_login_is_refused(colab, tmp_path):
    """The tool, without a session in its file, takes a login that is refused for an account without machines."""
    walk = Walk(tmp_path)
    sessions = tmp_path / "home" / "colab" / "sessions.json"
    with walk.start("run", "--yes") as launcher:
        walk.until(colab.assigned)
        kill(launcher)
    walk.until(lambda: sessions.exists() and len(sessions.read_text()) > 2)  # the tool goes on alone, and notes it
    sessions.write_text("{}")
    with colab.trouble(expired=True), walk.start("jobs", "--reconcile") as refused:
        assert "credentials" in refused.communicate(timeout=200)[1]
    assert walk.record()["intended"] is not None
    assert len(colab.assigned()) == 1
    walk.run("jobs", "--reconcile")
    assert colab.assigned() == []


def test_colab_launcher_killed_while_it_trains(colab, tool, tmp_path):
    """Here it is Google's own script that is called, for each of the tool's verbs that a job needs."""
    whole = {"colab": OPTIONS | {"command": tool}}
    walk = Walk(tmp_path, train={"rank": 4, "epochs": 1000.0, "max_steps": 30, "patience": 0}, backends=whole)
    # After a call its listening thread may sleep on for that long (`warm_tool` says why), by default ten seconds.
    walk.environment["REQUEST_TIMEOUT"] = "3"
    with walk.start("run", "--yes") as launcher:
        walk.until(lambda: walk.record().get("started"))
        kill(launcher)
    [machine] = colab.assigned()
    walk.until(lambda: json.loads(machine.read("/content/ftlaunch/state.json") or "{}").get("ended"))
    assert machine.running
    walk.run("jobs", "--reconcile")
    told = walk.only_job()
    assert (told["state"], colab.assigned()) == ("SUCCEEDED", [])
    walk.run("fetch", told["job"])
    assert (tmp_path / "runs" / told["job"] / "result.json").exists()


def test_colab_without_its_tool_says_what_to_install(tmp_path, colab):
    walk = Walk(tmp_path)
    done = walk.run("run", "--yes", "--set", "backends.colab.command=/nowhere/colab", code=3)
    assert "pipx install --python python3.12 google-colab-cli" in done.stderr
    assert colab.assigned() == []
