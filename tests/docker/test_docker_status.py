"""A container's state is told as a job's, whatever the engine says; a log is read on from anywhere."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from backends import docker_logs, docker_status
from backends.interface import Reason, State

BEGUN, LATER = "2026-11-24T10:00:00.123456789Z", "2026-11-24T10:01:00.5Z"


def container(status="exited", code=0, oom=False, limit="", started=BEGUN, finished=LATER):
    state = {"Status": status, "ExitCode": code, "OOMKilled": oom, "StartedAt": started, "FinishedAt": finished}
    return {"State": state, "Config": {"Labels": {"ftlaunch.max_seconds": limit}}}


@pytest.mark.parametrize("status", ["created", "running", "paused", "restarting", "removing", "exited", "dead"])
def test_docker_every_status_of_the_engine_is_known(status):
    """The values of ContainerState.Status in the engine's API."""
    assert status in docker_status.STATES
    assert docker_status.has_ended(container(status)) == (status in ("exited", "dead"))
    assert not docker_status.has_ended(container(status, started=docker_status.NEVER))


@pytest.mark.parametrize(
    ("told", "asked", "state", "reason"),
    [
        (container(code=0), True, State.SUCCEEDED, None),
        (container(code=2), False, State.FAILED, Reason.BAD_DATA),
        (container(code=3), False, State.FAILED, Reason.OUT_OF_MEMORY),
        (container(code=1), False, State.FAILED, Reason.UNKNOWN),
        (container(code=137, oom=True), False, State.FAILED, Reason.OUT_OF_MEMORY),
        (container(code=137), False, State.FAILED, Reason.UNKNOWN),
        (container(code=143), True, State.CANCELLED, Reason.USER),
        (container(code=143), False, State.FAILED, Reason.UNKNOWN),
        (container(code=137), True, State.CANCELLED, Reason.USER),
        (container(code=124, limit="60"), False, State.FAILED, Reason.TIMED_OUT),
        (container(code=137, limit="60"), False, State.FAILED, Reason.TIMED_OUT),
        (container(code=137, limit="61"), False, State.FAILED, Reason.UNKNOWN),
        (container(code=124, limit="60"), True, State.CANCELLED, Reason.USER),
        (container(code=2, limit="60"), False, State.FAILED, Reason.BAD_DATA),
    ],
)
def test_docker_an_end_has_its_reason(told, asked, state, reason):
    status = docker_status.ended(told, asked, "the last words")
    assert (status.state, status.reason) == (state, reason)
    assert state is State.SUCCEEDED or status.message


class Engine:
    """Gives a recorded log as the engine's API does: in the order of recording, filtered by the second of each line."""

    def __init__(self, lines):
        self.lines = lines

    def logs(self, container, *, since, follow, **_):
        assert not follow
        for second, text in self.lines:
            if since is None or second >= since:
                stamp = datetime.datetime.fromtimestamp(second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.5Z ")
                yield (stamp + text + "\n").encode()


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(-50, 0)), max_size=60),
    st.data(),
)
def test_docker_logs_are_read_on_from_anywhere(steps, data):
    """No line is lost or repeated, though the two streams are recorded up to a minute out of order."""
    second, lines = 1_700_000_000, []
    for number, (forward, back) in enumerate(steps):
        second += forward
        lines.append((second + back, f"line {number}"))
    whole = list(docker_logs.read(Engine(lines), "c", None, {}))
    assert [line.text for line in whole] == [text for _, text in lines]
    if whole:
        cut = data.draw(st.integers(0, len(whole) - 1))
        rest = list(docker_logs.read(Engine(lines), "c", whole[cut].cursor, {}))
        assert [line.text for line in rest] == [line.text for line in whole[cut + 1 :]]


def test_docker_logs_mask_secrets_and_keep_the_last_state_of_a_bar():
    secrets = {"MY_TOKEN": SecretStr("hunter2\n")}
    lines = [(1_700_000_000, "10 %\r20 %\rdone hunter2"), (1_700_000_000, "")]
    assert [line.text for line in docker_logs.read(Engine(lines), "c", None, secrets)] == ["done ***", ""]
