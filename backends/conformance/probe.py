"""Make a plan in an interpreter of its own, and tell what that reached for.

`main` reads `Question` as JSON from standard input and writes `Answer` as JSON. The clock is set to the question's time
before the backend's module is imported, so that ``from time import time`` sees it.
"""

from __future__ import annotations

import datetime
import importlib
import os
import re
import sys
import time
from typing import Any

from pydantic import BaseModel

from backends.conformance.audit import record_process
from backends.interface import Backend, BackendError, Json, Submission

SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY", re.IGNORECASE)


class Question(BaseModel):
    """What to plan, and when."""

    module: str
    name: str
    """Qualified name of the backend's class in the module."""
    submission: Submission
    now: float
    """Unix seconds that every clock shows."""


class Answer(BaseModel):
    """The plan and what making it reached for."""

    plan: Json | None = None
    error: str = ""
    imported_by_module: list[str] = []
    """Top-level modules that importing the backend's module loaded."""
    imported_by_plan: list[str] = []
    connections: list[str] = []
    processes: list[str] = []
    credential_files: list[str] = []
    environment: list[str] = []
    """Names of environment variables read that hold, by their name, a secret."""


def stop_clock(now: float) -> None:
    """Make every clock of the standard library show ``now``."""
    gmtime, localtime, strftime = time.gmtime, time.localtime, time.strftime
    stopped: dict[str, Any] = {
        "time": lambda: now,
        "time_ns": lambda: int(now * 1e9),
        "monotonic": lambda: now,
        "monotonic_ns": lambda: int(now * 1e9),
        "perf_counter": lambda: now,
        "gmtime": lambda seconds=None: gmtime(now if seconds is None else seconds),
        "localtime": lambda seconds=None: localtime(now if seconds is None else seconds),
        "strftime": lambda form, moment=None: strftime(form, gmtime(now) if moment is None else moment),
    }
    for name, clock in stopped.items():
        setattr(time, name, clock)

    class StoppedDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> StoppedDatetime:
            return cls.fromtimestamp(now, tz)

        @classmethod
        def utcnow(cls) -> StoppedDatetime:
            return cls.fromtimestamp(now, datetime.UTC).replace(tzinfo=None)

    class StoppedDate(datetime.date):
        @classmethod
        def today(cls) -> StoppedDate:
            return cls.fromtimestamp(now)

    vars(datetime).update(datetime=StoppedDatetime, date=StoppedDate)


def watch_environment(read: list[str]) -> None:
    """Append the name of every variable read to ``read``; iterating over the environment reads all of it."""
    kind: Any = type(os.environ)
    get, iterate = kind.__getitem__, kind.__iter__

    def recorded_get(self: Any, name: str) -> str:
        read.append(str(name))
        return str(get(self, name))

    def recorded_iterate(self: Any) -> Any:
        read.extend(iterate(self))
        return iterate(self)

    kind.__getitem__ = recorded_get
    kind.__iter__ = recorded_iterate


def loaded(before: set[str]) -> list[str]:
    """Top-level names of the modules loaded since ``before``."""
    return sorted({name.partition(".")[0] for name in set(sys.modules) - before})


def answer(question: Question) -> Answer:
    """Import, create and plan under observation."""
    environment: list[str] = []
    stop_clock(question.now)
    watch_environment(environment)
    found = Answer()
    before = set(sys.modules)
    reached = record_process()
    owner: Any = importlib.import_module(question.module)
    found.imported_by_module = loaded(before)
    between = set(sys.modules)
    for part in question.name.split("."):
        owner = vars(owner)[part]
    kind: type[Backend] = owner
    try:
        found.plan = kind.create().plan(question.submission).model_dump(mode="json", by_alias=True)
    except BackendError as error:
        found.error = f"{type(error).__name__}: {error}"
    found.imported_by_plan = loaded(between)
    found.connections = reached.connections
    found.processes = reached.processes
    found.credential_files = reached.credential_files
    found.environment = sorted({name for name in environment if SECRET_NAME.search(name)})
    return found


def main() -> None:
    """Answer the question on standard input."""
    told = answer(Question.model_validate_json(sys.stdin.read()))
    print(told.model_dump_json())
