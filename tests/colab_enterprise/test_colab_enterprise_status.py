"""What Colab Enterprise and the notebook can say of a job, walked over the enums of Google's own types."""

import json

import pytest
from google.cloud.aiplatform_v1.types import JobState, NotebookExecutionJob
from google.rpc import code_pb2, status_pb2

from backends.colab_enterprise_status import told
from backends.interface import Reason, State

ENDED = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
ENDED |= {"JOB_STATE_PARTIALLY_SUCCEEDED"}


class Place:
    """A job's folder in the bucket."""

    def __init__(self, **files: str) -> None:
        self.files = files

    def has(self, name: str) -> bool:
        return name.partition(".")[0] in self.files

    def text(self, name: str) -> str | None:
        return self.files.get(name.partition(".")[0])


def job(state, code=0, message=""):
    made = NotebookExecutionJob(job_state=state)
    if code:
        made.status = status_pb2.Status(code=code, message=message)
    return made


def end(code, error=""):
    return json.dumps({"exit_code": code, "error": error})


@pytest.mark.parametrize("state", JobState, ids=lambda state: state.name)
@pytest.mark.parametrize("code", code_pb2.Code.keys())
@pytest.mark.parametrize("wished", [False, True], ids=["left alone", "stopped"])
def test_colab_enterprise_every_state_and_code_has_state_and_reason(state, code, wished):
    place = Place(stop="") if wished else Place()
    found = told(job(state, code_pb2.Code.Value(code), "some words"), place)
    assert found.state.ended == (state.name in ENDED)
    assert (found.reason is not None) >= (found.state in (State.FAILED, State.CANCELLED))
    assert found.state is not State.SUCCEEDED or state is JobState.JOB_STATE_SUCCEEDED
    assert found.native_state == state.name
    assert found.billable_seconds is None
    assert found.state is not State.RUNNING or not wished


FAILED = job(JobState.JOB_STATE_FAILED, 3, "Notebook execution failed: RuntimeError: exit code")
LINES = "[start] a=1\nerror: row 3 of train.jsonl is no JSON\n  Correct it.\n"


@pytest.mark.parametrize(
    ("files", "state", "reason", "message"),
    [
        ({"end": end(2), "log": LINES}, State.FAILED, Reason.BAD_DATA, "row 3 of train.jsonl is no JSON. Correct it."),
        ({"end": end(3), "log": "error: memory ran out"}, State.FAILED, Reason.OUT_OF_MEMORY, "memory ran out"),
        ({"end": end(137)}, State.FAILED, Reason.OUT_OF_MEMORY, "exit code"),
        ({"end": end(143), "stop": ""}, State.CANCELLED, Reason.USER, "exit code"),
        ({"end": end(143)}, State.FAILED, Reason.UNKNOWN, "exit code"),
        ({"end": end(2), "log": LINES, "stop": ""}, State.FAILED, Reason.BAD_DATA, "row 3"),
        ({"end": end(None, "the packages cannot be installed")}, State.FAILED, Reason.UNKNOWN, "cannot be installed"),
        ({}, State.FAILED, Reason.UNKNOWN, "Notebook execution failed"),
    ],
)
def test_colab_enterprise_the_notebooks_own_word_goes_first(files, state, reason, message):
    found = told(FAILED, Place(**files))
    assert (found.state, found.reason) == (state, reason)
    assert message in found.message


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (8, "Resources are insufficient in region: us-central1", Reason.NO_CAPACITY),
        (8, "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 0.0 in region us-central1.", Reason.QUOTA),
        (7, "the account does not have storage.objects.get access", Reason.CREDENTIALS),
        (4, "The execution timed out", Reason.TIMED_OUT),
        (13, "Internal error", Reason.UNKNOWN),
    ],
)
def test_colab_enterprise_what_the_service_says_goes_second(code, text, reason):
    found = told(job(JobState.JOB_STATE_FAILED, code, text), Place())
    assert (found.state, found.reason) == (State.FAILED, reason)
    assert text in found.message


def test_colab_enterprise_a_cancelled_operation_is_the_users_will():
    failed = job(JobState.JOB_STATE_FAILED, 1, "cancelled")
    assert told(failed, Place(stop="")).state is State.CANCELLED
    assert told(job(JobState.JOB_STATE_CANCELLED, 1), Place(stop="")).state is State.CANCELLED
