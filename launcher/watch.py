"""Follows a job to its end: states, log lines by cursor, metrics, with back-off and over dropped connections."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from backends import secret_values
from backends.interface import Backend, BackendError, Handle, JobNotFound, Reason, State, Status
from launcher.store import Record, Store
from training_image import progress

FIRST, GROWTH, LONGEST = 0.1, 1.3, 5.0
"""Seconds to the next look; after one that showed nothing new, times the growth, up to the longest."""
REST = 3.0
"""After a look that took long, as by a tool that is started for it: so many times its own time to the next."""
LATE = 8.0
"""Seconds after the end for which a rented place's last lines are waited for: its log service is behind its jobs."""
MOST_FAILURES = 12
"""Looks in a row that may fail (about a minute) before the place counts as out of reach."""

TRACKING = "tracking"
"""The stage whose line tells where the trackers show the run: ``[tracking] mlflow=https://...``."""
DONE = "done"
"""The stage of the last line of a job that succeeds."""
BY_HAND = "notebook"
"""The native state of a job that a person runs from a notebook: no place can be asked for it."""


class View(Protocol):
    """Where a followed job is shown."""

    def line(self, text: str, parsed: tuple[str, dict[str, float | str]] | None) -> None:
        """A line of the job's output, and what it says if it is a progress line."""

    def status(self, status: Status) -> None:
        """The state, at every look."""

    def note(self, text: str) -> None:
        """Something for people about the watching itself."""


@dataclass
class Watch:
    """One job being followed."""

    record: Record
    store: Store
    backend: Backend
    view: View
    cursor: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    stage: str = ""
    """Of the last progress line that was read."""
    delay: float = FIRST
    failures: int = 0

    def __post_init__(self) -> None:
        """Go on where an earlier look left off."""
        self.cursor, self.metrics = self.record.cursor, dict(self.record.metrics)
        self.links = dict(self.record.links)

    def to_end(self) -> Record:
        """Follow until the job has ended; raises what `look` raises."""
        while (pause := self.look()) is not None:
            time.sleep(pause)
        return self.record

    def look(self) -> float | None:
        """Look once; the store knows all that was seen then. Gives the seconds to the next look, None after the end.

        Raises BackendError when the place cannot be reached for long, has no such job, or refuses the credentials.
        """
        handle = self.record.handle
        if handle is None:
            raise BackendError(f"{self.record.job} was never started", hint="run it again")
        began = time.monotonic()
        try:
            status = self.backend.status(handle)
            moved = self._read(handle, status, secret_values.known(self.record.secrets))
            self.failures = 0
        except BackendError as error:
            self.failures = self._failed(error, self.failures + 1)
            return min(LONGEST, FIRST * 2.0**self.failures)
        rest = min(LONGEST, REST * (time.monotonic() - began))
        moved = moved or status.state is not self.record.state
        self.record = self.store.observe(self.record.job, status)
        self.view.status(status)
        self.delay = FIRST if moved else min(LONGEST, self.delay * GROWTH)
        return None if status.state.ended and self._has_all_lines() else max(self.delay, rest)

    def _has_all_lines(self) -> bool:
        """Whether no line of the ended job is still to come."""
        capabilities = self.backend.capabilities
        if self.stage == DONE or not (capabilities.log_cursor and capabilities.billable_seconds):
            return True
        return time.time() - (self.record.ended or 0.0) > LATE

    def _failed(self, error: BackendError, failures: int) -> int:
        if isinstance(error, JobNotFound):
            self.store.update(self.record.job, state=State.UNKNOWN, message=error.message, ended=time.time())
        lasting = isinstance(error, JobNotFound) or error.reason is Reason.CREDENTIALS or failures >= MOST_FAILURES
        if lasting:
            raise error
        if failures == 1:
            self.view.note(f"{self.backend.name} cannot be asked at the moment, trying again: {error.message}")
        return failures

    def _read(self, handle: Handle, status: Status, secrets: secret_values.Secrets) -> bool:
        """Show the new lines; whether there were any. A place without a cursor is read once, at the end."""
        if not (self.backend.capabilities.log_cursor or status.state.ended):
            return False
        before = self.cursor
        after = self.cursor if self.backend.capabilities.log_cursor else None
        for line in self.backend.logs(handle, after):
            text = secret_values.mask(line.text, secrets)
            parsed = progress.parse(text)
            self.stage = parsed[0] if parsed else self.stage
            if parsed is not None:
                _take(parsed, self.metrics, self.links)
            self.view.line(text, parsed)
            self.cursor = line.cursor
        if self.cursor == before:
            return False
        self.store.update(self.record.job, cursor=self.cursor, metrics=self.metrics, links=self.links)
        return True


def refresh(record: Record, store: Store, backend: Backend) -> tuple[Record, str]:
    """Ask once how a live job stands; with it why that could not be told, if so. An ended job is not asked about."""
    if record.ended is not None:
        return record, ""
    if record.native_state == BY_HAND:
        return record, f"it runs by hand, in its notebook; ftlaunch fetch {record.job} --from FILE takes its archive in"
    try:
        # A place may know more than the handle from before a resume whose launcher died.
        handle = record.handle if record.submitted is not None else backend.find(record.job)
        if handle is None:
            return record, "it was not started yet: its launcher is at it, or died; the same run command goes on"
        if record.submitted is None:
            store.update(record.job, handle=handle, submitted=time.time())
        return store.observe(record.job, backend.status(handle)), ""
    except JobNotFound as error:
        changes = {"state": State.UNKNOWN, "message": error.message, "ended": time.time()}
        return store.update(record.job, **changes), error.message
    except BackendError as error:
        return record, f"as last seen; {backend.name} cannot be asked: {error.message}"


def latest(record: Record, backend: Backend) -> dict[str, dict[str, Any]]:
    """What a job's lines have told, by fields of `Record`: the last value of each metric, and the trackers' links.

    Read from where the last who followed it left off, which stays as it is: the next to follow is shown all lines.
    """
    told: dict[str, dict[str, Any]] = {"metrics": dict(record.metrics), "links": dict(record.links)}
    if record.handle is not None and backend.capabilities.log_cursor:
        with contextlib.suppress(BackendError):  # a place that cannot tell its lines now
            for line in backend.logs(record.handle, record.cursor):
                if (parsed := progress.parse(line.text)) is not None:
                    _take(parsed, told["metrics"], told["links"])
    return told


def _take(parsed: tuple[str, dict[str, float | str]], metrics: dict[str, float], links: dict[str, str]) -> None:
    """Take what a progress line tells of metrics and links."""
    stage, values = parsed
    if stage == TRACKING:
        links |= {name: value for name, value in values.items() if isinstance(value, str)}
    else:
        metrics |= {name: value for name, value in values.items() if isinstance(value, float) and "/" in name}
