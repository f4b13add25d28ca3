"""How a container's state is told as a job's."""

from __future__ import annotations

from datetime import datetime

from backends.docker_request import LIMIT_LABEL
from backends.interface import EXIT_REASONS, Json, Reason, State, Status

NEVER = "0001-01-01T00:00:00Z"
"""The engine's word for no time at all."""
STATES: dict[str, State] = {
    "created": State.STARTING,
    "restarting": State.STARTING,
    "running": State.RUNNING,
    "paused": State.RUNNING,
    "removing": State.UNKNOWN,
    "exited": State.UNKNOWN,
    "dead": State.UNKNOWN,
}
"""Every status of the engine's API; what has ended is told by `ended`."""
TIMED_OUT, STOPPED, KILLED = 124, 143, 137
MEMORY = "memory ran out; take a smaller model, data.max_length or train.batch_size, or raise backends.docker.memory_gb"


def was_started(container: Json) -> bool:
    """Whether the container ever ran."""
    return bool(container["State"]["StartedAt"] != NEVER)


def has_ended(container: Json) -> bool:
    """Whether it ran and does not any more."""
    return was_started(container) and container["State"]["Status"] in ("exited", "dead")


def running(container: Json, asked_to_stop: bool) -> Status:
    """The status of a container that has not ended."""
    native = str(container["State"]["Status"])
    state = STATES.get(native, State.UNKNOWN)
    if asked_to_stop and state is State.RUNNING:
        return Status(state=State.STOPPING, native_state=native, message="asked to stop; it saves first")
    message = "the container is paused: `docker unpause` lets it go on" if native == "paused" else ""
    return Status(state=state, native_state=native, message=message)


def ended(container: Json, asked_to_stop: bool, last_words: str) -> Status:
    """The status of a container that has ended; ``last_words`` is the log's error line."""
    told = container["State"]
    code = int(told["ExitCode"])
    native = f"exit code {code}"
    if code == 0:
        return Status(state=State.SUCCEEDED, native_state=native)
    if told.get("OOMKilled"):
        return _failed(Reason.OUT_OF_MEMORY, f"{native}, out of memory", f"killed: {MEMORY}")
    limit = container["Config"]["Labels"].get(LIMIT_LABEL)
    late = code == TIMED_OUT or (code == KILLED and limit and _ran(told) >= int(limit))
    if limit and late and not asked_to_stop:
        return _failed(Reason.TIMED_OUT, native, f"stopped after {limit} s, the budget's longest run time")
    if asked_to_stop and code in (STOPPED, KILLED, TIMED_OUT):
        return Status(state=State.CANCELLED, reason=Reason.USER, native_state=native, message="stopped on request")
    if code == STOPPED:
        message = "stopped from outside (`docker stop`, or the engine was restarted), and saved; --resume goes on"
        return _failed(Reason.UNKNOWN, native, message)
    if code == KILLED:
        message = "killed from outside, or by a machine without memory left; --resume goes on from the last checkpoint"
        return _failed(Reason.UNKNOWN, native, message)
    return _failed(EXIT_REASONS.get(code, Reason.UNKNOWN), native, last_words or str(told.get("Error") or ""))


def _failed(reason: Reason, native: str, message: str) -> Status:
    return Status(state=State.FAILED, reason=reason, native_state=native, message=message)


def _ran(told: Json) -> float:
    """Seconds between start and end."""
    begun, end = (datetime.fromisoformat(_micros(told[name])) for name in ("StartedAt", "FinishedAt"))
    return (end - begun).total_seconds()


def _micros(stamp: str) -> str:
    """The engine's time without its nanoseconds, which `datetime` does not take in any number."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction[:6]:0<6}+00:00"
