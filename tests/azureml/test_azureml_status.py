"""What Azure ML can say of a job, walked over the enums of azure-ai-ml."""

import pytest
from azure.ai.ml._restclient.arm_ml_service.models import JobStatus
from azure.ai.ml.operations._run_history_constants import JobStatus as RunStatus
from azure.ai.ml.operations._run_history_constants import RunHistoryConstants
from hypothesis import given
from hypothesis import strategies as st

from backends.azureml_status import STATES, active_seconds, failure, state, status
from backends.interface import Reason, State
from tests.clouds.azure.answers import timespan

OF_JOBS = [member.value for member in JobStatus]
OF_RUNS = [value for name, value in vars(RunStatus).items() if name.isupper()]
CODE = "Execution failed. User process '/opt/venv/bin/python' exited with status code {}. Please check log file "


def ended(native, text="", code="UserError", limit=None, seconds=10.0):
    error = {"error": {"error": {"code": code, "message": text}}} if text else {}
    return status(native, {"computeDuration": timespan(seconds), **error}, 1, limit)


@pytest.mark.parametrize("native", sorted({*OF_JOBS, *OF_RUNS}))
def test_azureml_every_status_has_its_state_and_reason(native):
    assert native in STATES
    told = ended(native, CODE.format(1))
    assert told.state is state(native)
    assert told.native_state == native
    assert (told.reason is not None) == (told.state in (State.FAILED, State.CANCELLED))
    assert (told.billable_seconds is not None) == told.state.ended


def test_azureml_no_table_holds_what_the_sdk_has_not():
    assert set(STATES) == {*OF_JOBS, *OF_RUNS}


def test_azureml_ends_are_the_sdks_ends():
    """But for what may come back: a paused run, and one that does not respond."""
    ends = {native for native in STATES if state(native).ended}
    assert ends == set(RunHistoryConstants.TERMINAL_STATUSES) - {RunStatus.PAUSED, RunStatus.NOTRESPONDING}


def test_azureml_values_of_a_newer_service_are_no_end():
    assert ended("Hibernating").state is State.UNKNOWN


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        ("UserError", CODE.format(2) + "Error: train.jsonl, line 3: no JSON", Reason.BAD_DATA),
        ("UserError", CODE.format(3), Reason.OUT_OF_MEMORY),
        ("UserError", CODE.format(137), Reason.OUT_OF_MEMORY),
        ("UserError", CODE.format(2) + "Error: failed to pull the preempted quota", Reason.BAD_DATA),
        ("AllocationFailed", "Allocation failed. We do not have sufficient capacity.", Reason.NO_CAPACITY),
        ("SkuNotAvailable", "The requested size is currently not available in eastus.", Reason.NO_CAPACITY),
        ("ClusterCoreQuotaReached", "Operation results in exceeding quota limits of Core.", Reason.QUOTA),
        ("UserError", "Failed to pull Docker image team.azurecr.io/ftlaunch:x", Reason.BAD_IMAGE),
        ("UserError", "Error Code: ScriptExecution.StreamAccess.NotFound", Reason.BAD_DATA),
        ("UserError", "Error Code: ScriptExecution.StreamAccess.Authentication", Reason.CREDENTIALS),
        ("ServiceError", "InternalServerError", Reason.UNKNOWN),
        ("UserError", "The container was OOMKilled", Reason.OUT_OF_MEMORY),
        ("UserError", "bigscience/bloom finds no room on the disk", Reason.UNKNOWN),
    ],
)
def test_azureml_failures_are_told_apart(code, text, reason):
    told = ended("Failed", text, code)
    assert (told.state, told.reason) == (State.FAILED, reason)
    assert told.message == f"{code}: {text.strip()}"


def test_azureml_time_limit_is_not_the_users_will():
    """Azure ML cancels a job at its timeout, and does not say that it was the timeout."""
    told = ended("Canceled", limit=60.0, seconds=60.4)
    assert (told.state, told.reason) == (State.FAILED, Reason.TIMED_OUT)
    assert "60 s" in told.message
    assert ended("Canceled", limit=60.0, seconds=12.0).reason is Reason.USER
    assert ended("Canceled", seconds=90.0).state is State.CANCELLED


def test_azureml_bill_is_of_all_machines():
    assert status("Completed", {"computeDuration": timespan(100.0)}, 3, None).billable_seconds == 300.0
    assert status("Running", {"startTimeUtc": "2026-11-24T00:00:00+00:00"}, 3, None).billable_seconds is None
    assert status("Canceled", {}, 3, None).billable_seconds == 0.0


@given(st.floats(0, 10**7))
def test_azureml_durations_of_the_run_history(seconds):
    assert active_seconds({"computeDuration": timespan(seconds)}) == pytest.approx(seconds, abs=1e-6)


def test_azureml_run_without_a_duration_is_told_by_its_times():
    times = {"startTimeUtc": "2026-11-24T10:00:00.5Z", "endTimeUtc": "2026-11-24T10:01:00.0000000+00:00"}
    assert active_seconds(times) == 59.5
    assert active_seconds({"computeDuration": "1.02:03:04.5"}) == 93784.5


def test_azureml_exit_codes_go_before_words():
    assert failure("UserError: " + CODE.format(4) + "OOM out of memory") is Reason.UNKNOWN
