"""What is written down of a job and its machine, with a stand-in for Google's tool: no machine, and no Docker."""

import json
import sys
import threading
import time

import pytest

from backends import colab_session
from backends.colab import Colab
from backends.colab_job import Job, Units
from backends.interface import BackendError, Handle, Reason, State, Status
from launcher.cost import sources
from tests.colab.test_colab_request import plan

TOOL = """#!{python}
import json, pathlib, sys
here = pathlib.Path({folder!r})
verb = next(each for each in sys.argv[1:] if each in ("new", "usage", "sessions", "exec", "stop"))
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if verb == "exec" and (here / "mute").exists():
    sys.exit("no answer")
elif verb == "exec":
    print("\\nftlaunch:true")
elif verb == "stop" and (here / "kept").exists() and (here / "kept").read_text() in sys.argv:
    sys.exit("Internal Server Error")
elif verb == "stop":
    (here / "sessions").write_text("")
elif (here / verb).exists():
    print((here / verb).read_text())
else:
    sys.exit(f"no {{verb}}")
"""
USAGE = "Current balance: {} compute units\nUsage rate: {}/hr\nActive assignments: 1"
ENDED = Status(state=State.FAILED, reason=Reason.SPOT_INTERRUPTED, native_state="lost")


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The folder of a stand-in that answers with the files in it."""
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(colab_session, "STOP_PAUSES", ())
    path = tmp_path / "colab-tool"
    path.write_text(TOOL.format(python=sys.executable, folder=str(tmp_path)))
    path.chmod(0o755)
    (tmp_path / "sessions").write_text("")
    (tmp_path / "usage").write_text(USAGE.format("99.00", "0.00"))
    return tmp_path


def kept(tool, name, **record):
    """A job that was staged here, with more in its record."""
    made = plan(options={"command": str(tool / "colab-tool"), "auth": "adc"})
    job = Job(name)
    job.stage(made.model_copy(update={"job_name": name, "inputs": {}}), {})
    job.update(**record)
    return job


def verbs(tool):
    lines = (tool / "calls").read_text().splitlines()
    return [verb for line in lines for verb in json.loads(line) if verb in ("new", "usage", "sessions", "exec", "stop")]


def test_colab_resume_that_took_no_machine_leaves_the_end_as_it_was(tool):
    job = kept(tool, "a-job", started=1.0, shown=ENDED)
    with pytest.raises(BackendError), job.alone() as locked:
        colab_session.begin(job, {}, locked)
    assert (job.record.started, job.record.shown, job.record.may_have_machine) == (1.0, ENDED, False)
    assert "new" in verbs(tool)


def test_colab_resume_that_dies_is_an_intent_again(tool, monkeypatch):
    """A machine without our code cannot be asked how the job stands: the next launcher has to start it."""
    job = kept(tool, "a-job", started=1.0, shown=ENDED)
    seen = []
    monkeypatch.setattr(colab_session, "_take", lambda *_: seen.append(job.record))
    monkeypatch.setattr(colab_session, "_send", lambda *_: seen.append(job.record))
    monkeypatch.setattr(colab_session, "_start", lambda *_: seen.append(job.record))
    with job.alone() as locked:
        colab_session.begin(job, {}, locked)
    assert [(each.started, each.ended, each.may_have_machine) for each in seen] == [(None, False, True)] * 3
    assert Colab.create().find("a-job") is None
    assert not job.record.may_have_machine


@pytest.mark.parametrize("clean_up", ["known", "release", "remove", "begin"])
def test_colab_machine_whose_endpoint_was_never_told_is_given_back(tool, clean_up):
    """It came with a resume that failed, and Colab gave another GPU than the one asked for."""
    job = kept(tool, "a-job", started=1.0, shown=ENDED, intended=time.time(), before=["gpu-old"])
    listed = "[?] gpu-old | Hardware: T4\n[?] cpu-users | Hardware: CPU\n[?] gpu-new | Hardware: L4\n"
    (tool / "sessions").write_text(listed)
    backend = Colab.create()
    if clean_up == "known":
        assert [each.job_name for each in backend.known()] == ["a-job"]
    elif clean_up == "begin":
        with pytest.raises(BackendError), job.alone() as locked:
            colab_session.begin(job, {}, locked)
        assert job.record.before == []
    else:
        getattr(backend, clean_up)(Handle(backend="colab", job_name=job.name))
    noted = json.loads((tool / "home" / "colab" / "sessions.json").read_text())
    assert {each["endpoint"] for each in noted.values()} == {"gpu-new"}
    assert not job.record.may_have_machine
    assert verbs(tool).count("stop") == 1


def test_colab_machine_that_does_not_stop_keeps_no_other(tool):
    """All jobs are gone through, and the complaint comes behind the last."""
    for name in ("a-job", "b-job"):
        kept(tool, name, started=1.0, shown=ENDED, intended=1.0, endpoint=f"gpu-{name}")
    (tool / "sessions").write_text("[?] gpu-a-job | Hardware: T4\n[?] gpu-b-job | Hardware: T4\n")
    (tool / "kept").write_text("a-job")
    found = []
    with pytest.raises(BackendError, match=r"a-job: .*Internal Server Error"):
        found.extend(each.job_name for each in Colab.create().known())
    assert not Job("b-job").record.may_have_machine
    assert Job("a-job").record.may_have_machine


def test_colab_machine_that_cannot_be_asked_is_not_noted_as_the_jobs(tool):
    """It may be the user's own: a clean-up stops what is noted under the job's name."""
    job = kept(tool, "a-job", started=1.0, shown=ENDED, intended=time.time())
    (tool / "sessions").write_text("[?] gpu-users | Hardware: T4\n")
    (tool / "mute").touch()
    with pytest.raises(BackendError, match="no answer"):
        list(Colab.create().known())
    assert json.loads((tool / "home" / "colab" / "sessions.json").read_text()) == {}
    (tool / "sessions").write_text("[a-job-asked] gpu-users | Hardware: T4\n")  # whoever asked it was killed
    with pytest.raises(BackendError, match="no answer"):
        list(Colab.create().known())
    assert "stop" not in verbs(tool)
    (tool / "mute").unlink()
    list(Colab.create().known())
    assert not job.record.may_have_machine


def test_colab_file_of_sessions_is_read_again_while_the_tool_writes_it(tool):
    job = kept(tool, "a-job", started=1.0)
    sessions = tool / "home" / "colab" / "sessions.json"
    sessions.write_text('{"a-job": {"endp')
    whole = threading.Timer(0.1, sessions.write_text, ['{"a-job": {"endpoint": "gpu-new"}}'])
    whole.start()
    assert colab_session.tool_of(job.record.plan.request).endpoint("a-job") == "gpu-new"
    whole.join()


def test_colab_secrets_of_a_launcher_that_was_killed_do_not_stay_here(tool):
    job = kept(tool, "a-job", intended=time.time(), endpoint="gpu-new")
    job.secrets.write_text('{"TOKEN": "value"}')
    assert Colab.create().find("a-job") is None
    assert not job.secrets.exists()


@pytest.mark.parametrize(
    ("usage", "after", "used"),
    [
        (USAGE.format("98.50", "0.00"), 98.5, 0.7),
        (USAGE.format("96.50", "1.00"), 96.5, 0.7),  # two hours of another machine, at a unit each
        (USAGE.format("120.00", "0.00"), 120.0, 0.2),  # units were bought
        ("Guthaben: 90", None, 0.2),
        (None, None, 0.2),
    ],
)
def test_colab_machine_that_was_lost_has_its_units_by_the_balance(tool, usage, after, used):
    units = Units(before=99.0, others=0.0, used=0.2)
    job = kept(tool, "a-job", started=1.0, intended=time.time() - 7200, endpoint="gpu-gone", units=units)
    (tool / "usage").write_text(usage) if usage else (tool / "usage").unlink()
    with job.alone():
        colab_session._lost(colab_session.tool_of(job.record.plan.request), job)
    assert (job.record.shown.reason, job.record.units.after) == (Reason.SPOT_INTERRUPTED, after)
    assert job.record.units.used == pytest.approx(used, abs=0.001)
    assert verbs(tool) == ["usage"]


def test_colab_rate_is_asked_of_the_users_own_tool(tool):
    (tool / "home").mkdir()
    options = f"backends: {{colab: {{command: {tool / 'colab-tool'}, auth: oauth2}}}}\n"
    (tool / "home" / "config.yaml").write_text(options)
    (tool / "usage").write_text(USAGE.format("98.50", "1.20"))
    (tool / "sessions").write_text("[?] gpu-mine | Hardware: T4\n")
    [price] = sources.colab("")
    assert (price.machine, price.usd_per_hour) == ("T4", pytest.approx(0.12))
    calls = [json.loads(line) for line in (tool / "calls").read_text().splitlines()]
    assert {tuple(each[:2]) for each in calls} == {("--auth", "oauth2")}
    (tool / "home" / "config.yaml").write_text("backends: {colab: {auth: password}}\n")
    with pytest.raises(sources.SourceError, match=r"config\.yaml"):
        next(iter(sources.colab("")))
