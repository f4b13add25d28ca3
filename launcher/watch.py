"""Follows a job to its end: states, log lines by cursor, metrics, with back-off and over dropped connections."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from backends.interface import Backend, BackendError, Handle, JobNotFound, Reason, State, Status
from launcher import secret_values
from launcher.store import Record, Store
from training_image import progress

FIRST, GROWTH, LONGEST = 0.2, 1.3, 5.0
"""Seconds to the next look; after one that showed nothing new, times the growth, up to the longest."""
MOST_FAILURES = 12
"""Looks in a row that may fail (about a minute) before the place counts as out of reach."""


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

    def to_end(self) -> Record:
        """Follow until the job has ended; the store knows all that was seen at any moment.

        Raises BackendError when the place cannot be reached for long, has no such job, or refuses the credentials.
        """
        handle = self.record.handle
        if handle is None:
            raise BackendError(f"{self.record.job} was never started", hint="run it again")
        self.cursor, self.metrics = self.record.cursor, dict(self.record.metrics)
        secrets = secret_values.known(self.record.secrets)
        delay, failures = FIRST, 0
        while True:
            try:
                status = self.backend.status(handle)
                moved = self._read(handle, status, secrets)
                failures = 0
            except BackendError as error:
                failures = self._failed(error, failures + 1)
                time.sleep(min(LONGEST, FIRST * 2**failures))
                continue
            moved = moved or status.state is not self.record.state
            self.record = self.store.observe(self.record.job, status)
            self.view.status(status)
            if status.state.ended:
                return self.record
            delay = FIRST if moved else min(LONGEST, delay * GROWTH)
            time.sleep(delay)

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
            if parsed is not None:
                numbers = {name: value for name, value in parsed[1].items() if isinstance(value, float)}
                self.metrics |= {name: value for name, value in numbers.items() if "/" in name}
            self.view.line(text, parsed)
            self.cursor = line.cursor
        if self.cursor == before:
            return False
        self.store.update(self.record.job, cursor=self.cursor, metrics=self.metrics)
        return True


def refresh(record: Record, store: Store, backend: Backend) -> tuple[Record, str]:
    """Ask once how a live job stands; with it why that could not be told, if so. An ended job is not asked about."""
    if record.ended is not None:
        return record, ""
    try:
        handle = record.handle or backend.find(record.job)
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
