"""What Vertex AI can say of a job, walked over the enums of Google's own types."""

import datetime

import pytest
from google.cloud.aiplatform_v1.types import CustomJob, CustomJobSpec, JobState, Scheduling, WorkerPoolSpec
from google.rpc import code_pb2, status_pb2

from backends.interface import Reason, State
from backends.vertex_status import CODES, STATES, failure, of_custom_job

ENDED = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
ENDED |= {"JOB_STATE_PARTIALLY_SUCCEEDED"}
NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


def job(state, code=0, message="", strategy="STANDARD", machines=(1,), start=None, end=None):
    pools = [WorkerPoolSpec(replica_count=count) for count in machines]
    scheduling = Scheduling(strategy=Scheduling.Strategy[strategy])
    made = CustomJob(state=state, job_spec=CustomJobSpec(worker_pool_specs=pools, scheduling=scheduling))
    if code:
        made.error = status_pb2.Status(code=code, message=message)
    if start is not None:
        made.start_time = NOON + datetime.timedelta(seconds=start)
    if end is not None:
        made.end_time = NOON + datetime.timedelta(seconds=end)
    return made


@pytest.mark.parametrize("state", JobState, ids=lambda state: state.name)
@pytest.mark.parametrize("code", code_pb2.Code.keys())
def test_vertex_every_state_and_code_has_state_and_reason(state, code):
    told = of_custom_job(job(state, code_pb2.Code.Value(code), "some words"))
    assert told.state.ended == (state.name in ENDED)
    assert (told.reason is not None) >= (told.state in (State.FAILED, State.CANCELLED))
    assert told.state is not State.SUCCEEDED or state is JobState.JOB_STATE_SUCCEEDED
    assert told.native_state == state.name


def test_vertex_no_table_holds_what_the_types_have_not():
    assert set(STATES) == set(JobState.__members__)
    assert set(CODES) == set(code_pb2.Code.values())


def test_vertex_a_state_of_a_newer_service_is_no_end():
    assert of_custom_job(job(99)).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (3, "The replica workerpool0-0 exited with a non-zero status of 2. To find out more", Reason.BAD_DATA),
        (3, "The replica workerpool1-0 exited with a non-zero status of 3.", Reason.OUT_OF_MEMORY),
        (
            3,
            "The replica workerpool0-0 ran out-of-memory and exited with a non-zero status of 137",
            Reason.OUT_OF_MEMORY,
        ),
        (3, "quota image preempted out of memory: exited with a non-zero status of 4.", Reason.UNKNOWN),
        (8, "Resources are insufficient in region: us-central1. Please try a different region", Reason.NO_CAPACITY),
        (8, "The following quota metrics exceed quota limits: aiplatform.googleapis.com/x", Reason.QUOTA),
        (5, 'Image "r-docker.pkg.dev/p/r/i:t" not found.', Reason.BAD_IMAGE),
        (13, "The job was preempted too often", Reason.SPOT_INTERRUPTED),
        (4, "", Reason.TIMED_OUT),
        (7, "", Reason.CREDENTIALS),
        (13, "Internal error occurred for the current attempt.", Reason.UNKNOWN),
    ],
)
def test_vertex_failures_are_told_apart(code, text, reason):
    assert failure(code, text) is reason
    told = of_custom_job(job(JobState.JOB_STATE_FAILED, code, text))
    assert (told.state, told.reason) == (State.FAILED, reason)
    assert text in told.message


def test_vertex_a_time_limit_is_not_the_users_will():
    assert of_custom_job(job(JobState.JOB_STATE_CANCELLED, 1, "cancelled")).state is State.CANCELLED
    told = of_custom_job(job(JobState.JOB_STATE_CANCELLED, 4, "timed out"))
    assert (told.state, told.reason) == (State.FAILED, Reason.TIMED_OUT)


@pytest.mark.parametrize(
    ("strategy", "start", "state", "reason"),
    [
        ("STANDARD", None, State.STARTING, None),
        ("SPOT", None, State.QUEUED, Reason.NO_CAPACITY),
        ("SPOT", 5, State.QUEUED, Reason.SPOT_INTERRUPTED),
        ("FLEX_START", None, State.QUEUED, Reason.NO_CAPACITY),
    ],
)
def test_vertex_a_pending_job_says_what_it_waits_for(strategy, start, state, reason):
    told = of_custom_job(job(JobState.JOB_STATE_PENDING, strategy=strategy, start=start))
    assert (told.state, told.reason) == (state, reason)


def test_vertex_bill_is_of_all_machines_from_start_to_end():
    done = JobState.JOB_STATE_SUCCEEDED
    assert of_custom_job(job(done, machines=(1, 2), start=0, end=100)).billable_seconds == 300
    assert of_custom_job(job(JobState.JOB_STATE_RUNNING, start=0)).billable_seconds is None
    assert of_custom_job(job(JobState.JOB_STATE_FAILED, 8, "none free", end=7)).billable_seconds == 0
