"""The record of every job, in SQLite, so that nothing is paid for twice or forgotten.

Several launchers may use it at once: it is in WAL mode, every change is one transaction, and who submits a job holds
the lock of its name (`Store.lock`), which the kernel frees however the holder ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from backends import secret_values
from backends.home import data_home
from backends.interface import Handle, Plan, Reason, State, Status
from launcher.actual_cost import actual_usd
from training_image.errors import InputError

_MIGRATIONS = (
    """
    CREATE TABLE jobs (
        job TEXT PRIMARY KEY, content TEXT NOT NULL, attempt INTEGER NOT NULL, backend TEXT NOT NULL,
        state TEXT NOT NULL, reason TEXT, native_state TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL, submitted REAL, ended REAL,
        job_file TEXT NOT NULL, as_submitted TEXT NOT NULL, plan TEXT,
        secrets TEXT NOT NULL, handle TEXT, target TEXT NOT NULL, output TEXT,
        cursor TEXT, metrics TEXT NOT NULL DEFAULT '{}', billable_seconds REAL, estimate_usd REAL, actual_usd REAL,
        UNIQUE (content, attempt)
    );
    CREATE TABLE digests (
        path TEXT PRIMARY KEY, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL
    );
    """,
    "ALTER TABLE jobs ADD COLUMN links TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE jobs ADD COLUMN estimate TEXT",
    "ALTER TABLE jobs ADD COLUMN seconds_before REAL NOT NULL DEFAULT 0",
)
"""One script a version; `PRAGMA user_version` counts those that ran."""


@dataclass(frozen=True)
class Record:
    """One job."""

    job: str
    content: str
    """Digest of what is run and where, without the attempt."""
    attempt: int
    backend: str
    job_file: str
    as_submitted: str
    """The effective job file."""
    plan: Plan | None
    """What was sent; None for a job that only its place knew of."""
    target: str
    """The folder that the results are to be fetched into."""
    secrets: list[str] = field(default_factory=list)
    """Names, for masking; never values."""
    state: State = State.QUEUED
    reason: Reason | None = None
    native_state: str = ""
    message: str = ""
    created: float = field(default_factory=time.time)
    """Unix seconds, as all times here."""
    submitted: float | None = None
    """None: an intent that no place has confirmed yet."""
    seconds_before: float = 0.0
    """How long it ran before it was resumed, by our clock."""
    ended: float | None = None
    """When it was first seen to have ended, or to be gone from its place; None: it is live."""
    handle: Handle | None = None
    output: str | None = None
    """The fetched folder, once it is whole."""
    cursor: str | None = None
    """The last log line that was seen."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The last value of each metric."""
    links: dict[str, str] = field(default_factory=dict)
    """Where each tracker shows the run."""
    billable_seconds: float | None = None
    estimate_usd: float | None = None
    actual_usd: float | None = None
    estimate: dict[str, Any] | None = None
    """What was expected at submit (`launcher.cost.estimate`): price with date and source, ranges, work."""

    @property
    def seconds(self) -> float:
        """How long it has run by our clock, from submit to end, without the time between an end and a resume."""
        last = 0.0 if self.submitted is None else (self.ended or time.time()) - self.submitted
        return self.seconds_before + last

    def listed(self) -> dict[str, Any]:
        """The document of ``jobs --json``."""
        return {
            "job": self.job,
            "backend": self.backend,
            "state": self.state,
            "reason": self.reason,
            "created": self.created,
            "ended": self.ended,
            "handle": None if self.handle is None else self.handle.model_dump(),
            "estimate_usd": self.estimate_usd,
            "actual_usd": self.actual_usd,
        }

    def document(self) -> dict[str, Any]:
        """The document of ``status --json``."""
        return self.listed() | {
            "native_state": self.native_state,
            "message": self.message,
            "billable_seconds": self.billable_seconds,
            "metrics": self.metrics,
            "links": self.links,
            "output": self.output,
        }


class Store:
    """``jobs.db``."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open or make the store; raises InputError where it cannot be written or a newer version made it."""
        self.folder = folder or data_home()
        path = self.folder / "jobs.db"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # the user's alone, as are the files beside it
            self.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            self.connection.row_factory = sqlite3.Row
            self._migrate(path)
        except (OSError, sqlite3.Error) as error:
            hint = "make its folder writable, or set FTLAUNCH_HOME to another"
            raise InputError(f"cannot use the record of jobs {path}: {error}", hint=hint) from error

    def _migrate(self, path: Path) -> None:
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise InputError(f"{path} was written by a newer ftlaunch", hint="update ftlaunch")
        if version == len(_MIGRATIONS):
            return
        # SQLite answers "locked" at once, without waiting, where two connections turn WAL on together.
        with self.lock("migration"):
            self.connection.execute("PRAGMA journal_mode = WAL")
        with self._transaction():
            (version,) = self.connection.execute("PRAGMA user_version").fetchone()  # another may have been faster
            for script in _MIGRATIONS[version:]:
                for statement in filter(str.strip, script.split(";")):
                    self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the only launcher that does this; another is waited for, after a call of ``waiting``.

        The kernel frees the lock if this launcher is killed.
        """
        folder = self.folder / "locks"
        folder.mkdir(exist_ok=True)
        with (folder / f"{name}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def log(self, job: str) -> Path:
        """Where the output of a fetched job is kept."""
        return self.folder / "logs" / f"{job}.txt"

    def of_content(self, content: str) -> list[Record]:
        """All attempts at the same content, first one first."""
        return self._select("WHERE content = ? ORDER BY attempt", content)

    def jobs(self) -> list[Record]:
        """All jobs, newest first."""
        return self._select("ORDER BY created DESC")

    def get(self, job: str) -> Record | None:
        """A job by its full name."""
        found = self._select("WHERE job = ?", job)
        return found[0] if found else None

    def add(self, record: Record) -> Record:
        """Record an intent; gives the record that is there already if another launcher was faster, or if its place has
        told of the job, whose content is known from now on."""
        known = self.get(record.job)
        if known is not None and known.plan is None:
            told = ("content", "attempt", "job_file", "as_submitted", "plan", "secrets", "target")
            return self.update(record.job, **{name: vars(record)[name] for name in told})
        row = _row(record)
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        self.connection.execute(f"INSERT OR IGNORE INTO jobs ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608
        found = self._select("WHERE content = ? AND attempt = ?", record.content, record.attempt)
        return found[0] if found else record

    def update(self, job: str, **changes: Any) -> Record:
        """Change a job's record; gives it as it is then."""
        names = {field.name for field in fields(Record)}
        if not changes.keys() <= names:
            raise KeyError(sorted(changes.keys() - names))
        if changes:
            assignments = ", ".join(f"{name} = ?" for name in changes)
            values = [_column(value) for value in changes.values()]
            self.connection.execute(f"UPDATE jobs SET {assignments} WHERE job = ?", [*values, job])  # noqa: S608
        found = self.get(job)
        assert found is not None
        return found

    def observe(self, job: str, status: Status) -> Record:
        """Record what the place says; the time of the end is that of the first look that saw it.

        A place's message may hold what the training said of its end, and so a secret.
        """
        before = self.get(job)
        known = secret_values.known(before.secrets) if before is not None and status.message else {}
        changes: dict[str, Any] = {
            "state": status.state,
            "reason": status.reason,
            "native_state": status.native_state,
            "message": secret_values.mask(status.message, known),
        }
        if status.billable_seconds is not None:
            changes["billable_seconds"] = status.billable_seconds
        if not status.state.ended:
            changes["ended"] = None
        elif before is not None and before.ended is None:
            changes["ended"] = time.time()
        if before is not None:
            changes["actual_usd"] = _dollars(before, status)
        return self.update(job, **changes)

    def remembered_digest(self, path: str, mtime_ns: int, size: int) -> str | None:
        """The SHA-256 of a file that has not changed since."""
        row = self.connection.execute(
            "SELECT sha256 FROM digests WHERE path = ? AND mtime_ns = ? AND size = ?", (path, mtime_ns, size)
        ).fetchone()
        return None if row is None else str(row["sha256"])

    def remember_digest(self, path: str, mtime_ns: int, size: int, sha256: str) -> None:
        """Keep the SHA-256 of a file by path, time and size."""
        self.connection.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (path, mtime_ns, size, sha256))

    def _select(self, condition: str, *values: object) -> list[Record]:
        rows = self.connection.execute(f"SELECT * FROM jobs {condition}", values)  # noqa: S608  # our own literals
        return [_record(dict(row)) for row in rows]


def _dollars(record: Record, status: Status) -> float | None:
    """What the job has cost so far, at the price kept with it."""
    seconds = status.billable_seconds if status.billable_seconds is not None else record.billable_seconds
    return actual_usd(record.estimate, seconds, status.state.ended, record.seconds)


def _row(record: Record) -> dict[str, Any]:
    return {field.name: _column(vars(record)[field.name]) for field in fields(record)}


def _column(value: Any) -> Any:
    if isinstance(value, Plan | Handle):
        return value.model_dump_json(by_alias=True)
    return json.dumps(value) if isinstance(value, dict | list) else value


def _record(row: dict[str, Any]) -> Record:
    row["plan"] = None if row["plan"] is None else Plan.model_validate_json(row["plan"])
    row["secrets"] = json.loads(row["secrets"])
    row["handle"] = None if row["handle"] is None else Handle.model_validate_json(row["handle"])
    row["state"] = State(row["state"])
    row["reason"] = None if row["reason"] is None else Reason(row["reason"])
    row["metrics"] = json.loads(row["metrics"])
    row["estimate"] = None if row["estimate"] is None else json.loads(row["estimate"])
    row["links"] = json.loads(row["links"])
    return Record(**row)
