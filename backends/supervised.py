"""What our own supervisor (`backends.local_supervisor`) wrote of a training: how the job stands, and its log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backends.interface import EXIT_REASONS, Cursor, Json, LogLine, Reason, State, Status
from backends.last_words import last_words

NOT_INSTALLED = 90
"""Exit code where the packages of the training could not be installed (`backends.colab_request`)."""
_REASONS = EXIT_REASONS | {NOT_INSTALLED: Reason.BAD_IMAGE}
_END_BYTES = 16384
"""Of the log in which the last words are looked for."""


def log_lines(path: Path, after: Cursor | None) -> Iterator[LogLine]:
    """The whole lines of a log that may still grow; a cursor is the byte where the next line starts."""
    if not path.exists():
        return
    with path.open("rb") as file:
        position = file.seek(int(after or 0))
        for line in file:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            yield LogLine(text=line.decode(errors="replace").rstrip("\r\n"), cursor=str(position))


def ended(folder: Path, state: Json) -> Status:
    """The status of an ended job: ``state`` has exit_code, cause, started and ended; ``folder`` its log.txt."""
    code, cause = int(state["exit_code"]), str(state["cause"])
    native = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
    seconds = int(state["ended"] - state["started"])
    if code == 0:
        return Status(state=State.SUCCEEDED, native_state=native)
    if cause == "timed_out":
        message = f"stopped after {seconds} s, the budget's longest run time"
        return Status(state=State.FAILED, reason=Reason.TIMED_OUT, native_state=native, message=message)
    if cause in ("cancelled", "stopped") or code == 143:
        return Status(state=State.CANCELLED, reason=Reason.USER, native_state=native, message="stopped on request")
    if code in (-9, 137) or cause == "memory":
        message = "killed, most likely because memory ran out; try a smaller model, data.max_length or train.batch_size"
        return Status(state=State.FAILED, reason=Reason.OUT_OF_MEMORY, native_state=native, message=message)
    reason = _REASONS.get(code, Reason.UNKNOWN)
    return Status(state=State.FAILED, reason=reason, native_state=native, message=_last_words(folder / "log.txt"))


def _last_words(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return last_words(file.read().decode(errors="replace").splitlines())
