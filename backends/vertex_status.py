"""What Vertex AI says of a custom job or a notebook execution, in our words."""

from __future__ import annotations

import re
from typing import Any

from backends import cloud_status
from backends.interface import Reason, State, Status

STATES: dict[str, tuple[State, Reason | None]] = {
    "JOB_STATE_UNSPECIFIED": (State.UNKNOWN, None),
    "JOB_STATE_QUEUED": (State.QUEUED, None),
    "JOB_STATE_PENDING": (State.STARTING, None),
    "JOB_STATE_RUNNING": (State.RUNNING, None),
    "JOB_STATE_SUCCEEDED": (State.SUCCEEDED, None),
    "JOB_STATE_FAILED": (State.FAILED, Reason.UNKNOWN),
    "JOB_STATE_CANCELLING": (State.STOPPING, None),
    "JOB_STATE_CANCELLED": (State.CANCELLED, Reason.USER),
    "JOB_STATE_PAUSED": (State.QUEUED, None),
    "JOB_STATE_EXPIRED": (State.FAILED, Reason.TIMED_OUT),
    "JOB_STATE_UPDATING": (State.RUNNING, None),
    "JOB_STATE_PARTIALLY_SUCCEEDED": (State.FAILED, Reason.UNKNOWN),
}
"""JobState. Partial success is none: the adapter may be what is missing."""

CODES: dict[int, Reason] = {
    0: Reason.UNKNOWN,  # OK
    1: Reason.USER,  # CANCELLED
    2: Reason.UNKNOWN,  # UNKNOWN
    3: Reason.UNKNOWN,  # INVALID_ARGUMENT
    4: Reason.TIMED_OUT,  # DEADLINE_EXCEEDED
    5: Reason.UNKNOWN,  # NOT_FOUND
    6: Reason.UNKNOWN,  # ALREADY_EXISTS
    7: Reason.CREDENTIALS,  # PERMISSION_DENIED
    8: Reason.NO_CAPACITY,  # RESOURCE_EXHAUSTED
    9: Reason.UNKNOWN,  # FAILED_PRECONDITION
    10: Reason.UNKNOWN,  # ABORTED
    11: Reason.UNKNOWN,  # OUT_OF_RANGE
    12: Reason.UNKNOWN,  # UNIMPLEMENTED
    13: Reason.UNKNOWN,  # INTERNAL
    14: Reason.UNKNOWN,  # UNAVAILABLE
    15: Reason.UNKNOWN,  # DATA_LOSS
    16: Reason.CREDENTIALS,  # UNAUTHENTICATED
}
"""google.rpc.Code of an error whose words tell nothing more."""

WORDS: tuple[tuple[str, Reason], ...] = (
    (r"(?i)quota metrics exceed|quota.*(exceeded|exhausted)", Reason.QUOTA),
    (r"(?i)resources are insufficient|STOCKOUT|RESOURCE_POOL_EXHAUSTED|not have enough resources", Reason.NO_CAPACITY),
    (r"(?i)preempt", Reason.SPOT_INTERRUPTED),
    (r"(?i)out.of.memory", Reason.OUT_OF_MEMORY),
    (r"(?i)(pull|find|access).*image|image.*(not found|does not exist|pull)", Reason.BAD_IMAGE),
    (r"(?i)timed? ?out|deadline", Reason.TIMED_OUT),
    (r"(?i)permission|not authorized|unauthenticated", Reason.CREDENTIALS),
)
"""Words of an error message that tell what went wrong outside of the training, first one first."""

_EXIT = re.compile(r"non-zero (?:exit )?status(?: code)?(?: of)?:? (\d+)")


def status(job: Any, state: Any, error: Any, machines: int, waits_for: Reason | None = None) -> Status:
    """A CustomJob or NotebookExecutionJob as a status.

    ``error``: its google.rpc.Status; ``machines``: how many run, for the bill; ``waits_for``: why it would be pending.
    """
    native = getattr(state, "name", str(state))
    found, reason = STATES.get(native, (State.UNKNOWN, None))
    code, message = int(error.code), str(error.message)
    if found is State.FAILED and reason is not Reason.TIMED_OUT:
        reason = failure(code, message)
    elif found is State.CANCELLED and CODES.get(code) is Reason.TIMED_OUT:
        found, reason = State.FAILED, Reason.TIMED_OUT
    elif native == "JOB_STATE_PENDING" and waits_for is not None:
        found, reason = State.QUEUED, waits_for
    if found is State.FAILED and reason is Reason.TIMED_OUT:
        message = f"{message or native}; what was saved can be fetched, and the job resumed"
    return Status(
        state=found,
        reason=reason,
        native_state=native,
        message=message,
        billable_seconds=_seconds(job, found, machines),
    )


def of_custom_job(job: Any) -> Status:
    """A CustomJob as a status."""
    machines = sum(int(pool.replica_count) for pool in job.job_spec.worker_pool_specs)
    return status(job, job.state, job.error, machines, waits_for=_waits_for(job))


def failure(code: int, text: str) -> Reason:
    """The reason in an error: the training's own exit code goes before words, and words before the code."""
    return cloud_status.failure(text, _EXIT, WORDS) or CODES.get(code, Reason.UNKNOWN)


def _seconds(job: Any, state: State, machines: int) -> float | None:
    """From the moment the job first ran to its end, times the machines; None before the end.

    A notebook execution tells only when it was made and last changed: no bill can be made of that.
    """
    if not state.ended or "end_time" not in type(job).meta.fields or not job.end_time:
        return None
    if not job.start_time:
        return 0.0  # never had a machine
    return float((job.end_time - job.start_time).total_seconds()) * machines


def _waits_for(job: Any) -> Reason | None:
    """What a job waits for while it has no machine: spot machines are taken away, flex-start queues for free ones."""
    strategy = job.job_spec.scheduling.strategy.name
    if strategy == "SPOT" and job.start_time:
        return Reason.SPOT_INTERRUPTED
    return Reason.NO_CAPACITY if strategy in ("SPOT", "FLEX_START") else None
