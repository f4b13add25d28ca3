"""What Azure ML says of a job, in our words."""

from __future__ import annotations

import re
from datetime import datetime

from backends import cloud_status
from backends.interface import Json, Reason, State, Status

STATES: dict[str, tuple[State, Reason | None]] = {
    "NotStarted": (State.QUEUED, None),
    "Starting": (State.QUEUED, None),
    "Preparing": (State.QUEUED, None),
    "Queued": (State.QUEUED, None),
    "Provisioning": (State.STARTING, None),
    "Running": (State.RUNNING, None),
    "Finalizing": (State.RUNNING, None),
    "CancelRequested": (State.STOPPING, None),
    "Completed": (State.SUCCEEDED, None),
    "Failed": (State.FAILED, None),
    "Canceled": (State.CANCELLED, Reason.USER),
    "NotResponding": (State.UNKNOWN, None),
    "Paused": (State.QUEUED, None),
    "Unknown": (State.UNKNOWN, None),
}
"""JobStatus. Azure ML prepares the environment before it queues for machines, and says Starting where it has only taken
the job: all of that is waiting. A job that does not respond may come back, by its documentation: no end."""

FAILURES: tuple[tuple[str, Reason], ...] = (
    (r"SkuNotAvailable|\w*AllocationFailed|OverconstrainedAllocationRequest|out of capacity", Reason.NO_CAPACITY),
    (r"CoreQuota|QuotaExceeded|(?i:exceed\w*.*quota|quota.*exceed)", Reason.QUOTA),
    (r"(?i)failed to pull|pull.*image|image.*(not found|does not exist|pull)|manifest unknown", Reason.BAD_IMAGE),
    (r"(?i)preempt", Reason.SPOT_INTERRUPTED),
    (r"(?i)out of memory|OutOfMemory|\bOOM(Killed)?\b", Reason.OUT_OF_MEMORY),
    (r"(?i)timed out|maximum (run|allowed) (time|duration)|JobTimeout", Reason.TIMED_OUT),
    (r"(?i)ScriptExecution\.StreamAccess\.NotFound|InputPath.*not (found|exist)", Reason.BAD_DATA),
    (r"(?i)Authenticat|AuthorizationFailed|StreamAccess\.Authentication|Forbidden", Reason.CREDENTIALS),
)
"""What an error's code or message holds that tells what went wrong outside of the training, first one first."""

_EXIT = re.compile(r"exited with (?:status|exit)? ?code:? (\d+)")
_SPAN = re.compile(r"(?:(?P<days>\d+)\.)?(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+(?:\.\d+)?)")


def state(native: str) -> State:
    """The state that Azure ML's own word stands for; a word of a newer service is no end."""
    return STATES.get(native, (State.UNKNOWN, None))[0]


def status(native: str, run: Json, machines: int, limit: float | None) -> Status:
    """A job's status as one of ours.

    ``run`` is the run history's record of the job (empty where it has none yet), ``limit`` the job's timeout in
    seconds. The bill is of the seconds that the run history counts as active, on all machines.
    """
    now, reason = STATES.get(native, (State.UNKNOWN, None))
    message = _message(run)
    seconds = active_seconds(run) if now.ended else None
    if native == "Failed":
        reason = failure(message)
    if native == "Canceled" and limit is not None and seconds is not None and seconds >= limit:
        # Azure ML cancels a job that ran too long, and does not say who it was.
        now, reason = State.FAILED, Reason.TIMED_OUT
        message = (
            f"stopped at the longest run time of {limit:.0f} s; what was saved can be fetched, and the job resumed"
        )
    billed = None if seconds is None else seconds * machines
    return Status(state=now, reason=reason, native_state=native, message=message, billable_seconds=billed)


def failure(text: str) -> Reason:
    """The reason in an error: the training's own exit code goes before words that it happened to print."""
    return cloud_status.failure(text, _EXIT, FAILURES) or Reason.UNKNOWN


def active_seconds(run: Json) -> float:
    """How long a run that has ended was active; 0 for one that never was."""
    told = _SPAN.fullmatch(run.get("computeDuration") or "")
    if told:
        parts = [float(told[part] or 0) for part in ("days", "hours", "minutes", "seconds")]
        return ((parts[0] * 24 + parts[1]) * 60 + parts[2]) * 60 + parts[3]
    if not run.get("startTimeUtc") or not run.get("endTimeUtc"):
        return 0.0
    start, end = (datetime.fromisoformat(run[key]) for key in ("startTimeUtc", "endTimeUtc"))
    return max(0.0, (end - start).total_seconds())


def parse_duration(text: str) -> float:
    """Seconds of an ISO 8601 duration of days and smaller, as Azure tells a timeout."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", text)
    if found is None:
        raise ValueError(text)
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _message(run: Json) -> str:
    """Code and message of a run's error, in one line."""
    error = (run.get("error") or {}).get("error") or {}
    told = [str(error[key]) for key in ("code", "message") if error.get(key)]
    return " ".join(": ".join(told).split())
