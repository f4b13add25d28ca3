"""What SageMaker says of a training job, in our words."""

from __future__ import annotations

import re

from backends import cloud_status
from backends.interface import Json, Reason, State, Status

STATES: dict[str, State] = {
    "InProgress": State.RUNNING,
    "Completed": State.SUCCEEDED,
    "Failed": State.FAILED,
    "Stopping": State.STOPPING,
    "Stopped": State.CANCELLED,
    "Deleting": State.UNKNOWN,
}
"""TrainingJobStatus; what is in progress or stopped is told apart by the secondary status."""

SECONDARY: dict[str, tuple[State, Reason | None]] = {
    "Starting": (State.STARTING, None),
    "LaunchingMLInstances": (State.STARTING, None),
    "PreparingTrainingStack": (State.STARTING, None),
    "Pending": (State.QUEUED, Reason.NO_CAPACITY),
    "Downloading": (State.STARTING, None),
    "DownloadingTrainingImage": (State.STARTING, None),
    "Training": (State.RUNNING, None),
    "Updating": (State.RUNNING, None),
    "Uploading": (State.RUNNING, None),
    "Restarting": (State.STARTING, None),
    "Interrupted": (State.QUEUED, Reason.SPOT_INTERRUPTED),
    "Stopping": (State.STOPPING, None),
    "Stopped": (State.CANCELLED, Reason.USER),
    "MaxRuntimeExceeded": (State.FAILED, Reason.TIMED_OUT),
    "MaxWaitTimeExceeded": (State.FAILED, Reason.NO_CAPACITY),
    "Completed": (State.SUCCEEDED, None),
    "Failed": (State.FAILED, None),
}
"""SecondaryStatus."""

FAILURES: tuple[tuple[str, Reason], ...] = (
    (r"CapacityError|InsufficientInstanceCapacity|requested ML compute capacity", Reason.NO_CAPACITY),
    (r"ResourceLimitExceeded|account-level service limit", Reason.QUOTA),
    (r"(?i)CannotStartContainer|pull.*image|image.*(not found|does not exist|pull)", Reason.BAD_IMAGE),
    (r"(?i)out of memory|OutOfMemory|\bOOM(Killed)?\b", Reason.OUT_OF_MEMORY),
    (r"ClientError: Data download failed|No S3 objects found", Reason.BAD_DATA),
    (r"(?i)AccessDenied|not authorized|Unable to assume|could not assume", Reason.CREDENTIALS),
    (r"(?i)spot.*interrupt|interrupt.*spot", Reason.SPOT_INTERRUPTED),
)
"""Beginnings of FailureReason that tell what went wrong outside of the training, first one first."""

_EXIT = re.compile(r"exit code: (\d+)\s*$")


def status(job: Json) -> Status:
    """A DescribeTrainingJob answer as a status."""
    native, secondary = str(job["TrainingJobStatus"]), str(job.get("SecondaryStatus", ""))
    state = STATES.get(native, State.UNKNOWN)
    reason: Reason | None = None
    message = str(job.get("FailureReason") or _last_message(job))
    if native == "InProgress":
        # Of a newer service's values only the first word is known; an end is told by the status alone.
        state, reason = SECONDARY.get(secondary, (state, None))
        if state.ended or state is State.STOPPING:
            state, reason = State.RUNNING, None
    elif native == "Stopped":
        ended, why = SECONDARY.get(secondary, (state, None))
        state, reason = (ended, why) if ended is State.FAILED and why else (state, Reason.USER)
    elif native == "Failed":
        reason = failure(message)
    if secondary == "MaxRuntimeExceeded":
        limit = job.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
        message = f"stopped at the longest run time of {limit} s; what was saved can be fetched, and the job resumed"
    if secondary == "MaxWaitTimeExceeded":
        message = "no spot machine was free for long enough; raise backends.sagemaker.max_wait_hours or do without spot"
    billed = job.get("BillableTimeInSeconds")
    seconds = None if billed is None else float(billed) * job["ResourceConfig"].get("InstanceCount", 1)
    shown = native if secondary in ("", native) else f"{native}: {secondary}"
    return Status(state=state, reason=reason, native_state=shown, message=message, billable_seconds=seconds)


def failure(text: str) -> Reason:
    """The reason in a FailureReason: the training's own exit code goes before words that it happened to print."""
    return cloud_status.failure(text, _EXIT, FAILURES) or Reason.UNKNOWN


def _last_message(job: Json) -> str:
    transitions = job.get("SecondaryStatusTransitions") or [{}]
    return str(transitions[-1].get("StatusMessage", ""))
