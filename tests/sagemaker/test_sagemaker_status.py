"""What SageMaker can say of a job, walked over the enums of botocore's own model."""

import botocore.session
import pytest

from backends.interface import Reason, State
from backends.sagemaker_status import SECONDARY, STATES, failure, status

MODEL = botocore.session.get_session().get_service_model("sagemaker")
RESOURCES = {"InstanceCount": 1}


def described(native, secondary, **more):
    return {"TrainingJobStatus": native, "SecondaryStatus": secondary, "ResourceConfig": RESOURCES, **more}


@pytest.mark.parametrize("native", MODEL.shape_for("TrainingJobStatus").enum)
def test_sagemaker_every_status_has_its_state(native):
    assert native in STATES


@pytest.mark.parametrize("secondary", MODEL.shape_for("SecondaryStatus").enum)
@pytest.mark.parametrize("native", MODEL.shape_for("TrainingJobStatus").enum)
def test_sagemaker_every_pair_has_state_and_reason(native, secondary):
    assert secondary in SECONDARY
    told = status(described(native, secondary, FailureReason="AlgorithmError: , exit code: 1"))
    assert told.state.ended == (native in ("Completed", "Failed", "Stopped"))
    assert (told.reason is not None) >= (told.state in (State.FAILED, State.CANCELLED))
    assert told.state is not State.SUCCEEDED or native == "Completed"


def test_sagemaker_no_table_holds_what_the_model_has_not():
    assert set(STATES) == set(MODEL.shape_for("TrainingJobStatus").enum)
    assert set(SECONDARY) == set(MODEL.shape_for("SecondaryStatus").enum)


def test_sagemaker_values_of_a_newer_service_are_no_end():
    assert status(described("Hibernating", "Asleep")).state is State.UNKNOWN
    assert status(described("InProgress", "Asleep")).state is State.RUNNING
    assert status(described("Stopped", "Asleep")).state is State.CANCELLED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("AlgorithmError: train.jsonl, line 3: no JSON, exit code: 2", Reason.BAD_DATA),
        ("AlgorithmError: the GPU's memory ran out, exit code: 3", Reason.OUT_OF_MEMORY),
        ("AlgorithmError: , exit code: 137", Reason.OUT_OF_MEMORY),
        ("AlgorithmError: pull image spot out of memory, exit code: 2", Reason.BAD_DATA),
        ("CapacityError: Unable to provision requested ML compute capacity.", Reason.NO_CAPACITY),
        ("ClientError: Data download failed:NoSuchKey (404): s3://bucket/key", Reason.BAD_DATA),
        ("ClientError: Cannot pull image from ECR", Reason.BAD_IMAGE),
        ("InternalServerError: We encountered an internal error.  Please try again.", Reason.UNKNOWN),
        ("AlgorithmError: OOMKilled", Reason.OUT_OF_MEMORY),
        ("ClientError: bigscience/bloom finds no room on the disk", Reason.UNKNOWN),
    ],
)
def test_sagemaker_failure_reason_is_told_apart(text, reason):
    told = status(described("Failed", "Failed", FailureReason=text))
    assert (told.state, told.reason) == (State.FAILED, reason)
    assert told.message == text
    assert failure(text) is reason


def test_sagemaker_time_limits_are_not_the_users_will():
    told = status(described("Stopped", "MaxRuntimeExceeded", StoppingCondition={"MaxRuntimeInSeconds": 60}))
    assert (told.state, told.reason) == (State.FAILED, Reason.TIMED_OUT)
    assert "60 s" in told.message
    assert status(described("Stopped", "MaxWaitTimeExceeded")).reason is Reason.NO_CAPACITY
    assert status(described("Stopped", "Stopped")).reason is Reason.USER


def test_sagemaker_bill_is_of_all_machines():
    job = described("Completed", "Completed", BillableTimeInSeconds=100) | {"ResourceConfig": {"InstanceCount": 3}}
    assert status(job).billable_seconds == 300.0
    assert status(described("InProgress", "Training")).billable_seconds is None
