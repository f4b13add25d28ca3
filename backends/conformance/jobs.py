"""The jobs that the suite runs: variants of the author's small job, and how one is followed to its end."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import SecretStr

from backends.conformance.promise import Violation
from backends.interface import Cursor, Handle, LogLine, Plan, Status, Submission

if TYPE_CHECKING:
    from backends.conformance.harness import Census, Harness

T = TypeVar("T")

SECRET = "FTLAUNCH_CONFORMANCE_TOKEN"  # noqa: S105 - the name of a secret, not its value

_STEP = re.compile(r"\[train\].*\bstep=(\d+)")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job ready to be submitted."""

    submission: Submission
    plan: Plan
    files: Mapping[str, Path]


@dataclass(slots=True)
class Tried(Generic[T]):
    """What a call gave, or how it failed."""

    value: T | None = None
    error: Exception | None = None

    def get(self, what: str) -> T:
        """The value; `Violation` with the call's error if there was one."""
        if self.error is not None:
            raise Violation(f"{what} failed: {type(self.error).__name__}: {self.error}") from self.error
        if self.value is None:
            raise Violation(f"{what} gave nothing")
        return self.value


def attempt(call: Callable[[], T]) -> Tried[T]:
    """Call, and keep an exception instead of raising it, so that only the promise concerned sees it."""
    try:
        return Tried(value=call())
    except Exception as error:  # any exception is a finding here, and is judged later
        return Tried(error=error)


@dataclass(slots=True)
class Run:
    """A job followed to its end."""

    job: Prepared
    handle: Handle
    end: Status
    trail: list[Status]
    """Every status told on the way, the end included."""
    followed: list[LogLine]
    """The log as a reader gathers it who comes back again and again with the last cursor."""
    lines: list[LogLine]
    """The log read anew after the end."""
    census: Census
    """Taken at the moment at which the end was told."""
    afterwards: list[Status] = field(default_factory=list)
    """What was told when the end was asked for again."""


@dataclass(slots=True)
class Watch:
    """Follows one job with a fresh backend for every look, as a launcher that is started again and again."""

    harness: Harness
    handle: Handle
    trail: list[Status] = field(default_factory=list)
    followed: list[LogLine] = field(default_factory=list)
    cursor: Cursor | None = None

    def look(self) -> Status:
        """Ask once for the state."""
        status = self.harness.fresh().status(self.handle)
        self.trail.append(status)
        return status

    def read(self, step: int | None = None) -> int:
        """Read on in the log, to that training step at most; the number of new lines.

        Without a log cursor a reader has to wait for the end.
        """
        if not self.harness.backend.capabilities.log_cursor:
            return 0
        before = len(self.followed)
        for line in self.harness.fresh().logs(self.handle, self.cursor):
            self.followed.append(line)
            self.cursor = line.cursor
            if step is not None and step_of(line) >= step:
                break
        return len(self.followed) - before

    def to_step(self, step: int) -> None:
        """Wait until the log shows that training step, or RUNNING where the log cannot be followed."""
        followable = self.harness.backend.capabilities.log_cursor
        deadline = time.monotonic() + self.harness.end_seconds
        while time.monotonic() < deadline:
            status = self.look()
            self.read(step)
            if last_step(self.followed) >= step:
                return
            if not followable and status.state == "RUNNING":
                return
            if status.state.ended:
                raise Violation(
                    f"{self.handle.job_name} ended before step {step} was seen: {status!r}{self.tail()}"
                    " (raise Harness.long_steps if it was simply done)"
                )
            time.sleep(self.harness.poll_seconds)
        raise Violation(
            f"{self.handle.job_name} showed no step {step} in {self.harness.end_seconds:.0f} s{self.tail()}"
        )

    def to_end(self, seconds: float | None = None) -> Census:
        """Wait for the end and read the rest of the log; the place's census at the moment the end was told."""
        limit = self.harness.end_seconds if seconds is None else seconds
        deadline = time.monotonic() + limit
        while not self.look().state.ended:
            if time.monotonic() > deadline:
                raise Violation(f"{self.handle.job_name} did not end in {limit:.0f} s: {self.trail[-1]!r}{self.tail()}")
            self.read()
            time.sleep(self.harness.poll_seconds)
        census = self.harness.census(self.handle.job_name)
        while self.read() and time.monotonic() < deadline:  # a service may give the last lines after the end
            time.sleep(self.harness.poll_seconds)
        return census

    def finish(self, job: Prepared, seconds: float | None = None) -> Run:
        """Wait for the end and gather all of it."""
        census = self.to_end(seconds)
        lines = list(self.harness.fresh().logs(self.handle, None))
        return Run(job, self.handle, self.trail[-1], list(self.trail), self.followed, lines, census)

    def tail(self) -> str:
        """The log's last lines, for a message."""
        lines = attempt(lambda: list(self.harness.fresh().logs(self.handle, None))).value or []
        return "".join(f"\n    | {line.text}" for line in lines[-8:])


def step_of(line: LogLine) -> int:
    """The training step that a line tells; -1 for any other line."""
    match = _STEP.search(line.text)
    return int(match[1]) if match else -1


def last_step(lines: list[LogLine]) -> int:
    """The last training step that the log tells; -1 if none."""
    return max((step_of(line) for line in lines), default=-1)


def within(seconds: float, call: Callable[[], object]) -> bool:
    """Whether the call comes back in time; it is left behind in its thread if not."""
    thread = threading.Thread(target=lambda: attempt(call), daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def prepare(
    harness: Harness,
    kind: str,
    *,
    steps: int | None = None,
    max_seconds: int | None = None,
    bad_data: bool = False,
    secret: bool = False,
) -> Prepared:
    """Make a variant of the small job, planned and resolved.

    ``steps`` makes it long, with checkpoints on the way; ``bad_data`` adds a row that is no JSON.
    """
    small = harness.runs.small
    name = f"conf-{kind}-{harness.session}"
    spec = small.spec.model_copy(update={"job": name})
    if steps is not None:
        long = {"max_steps": steps, "epochs": float(steps), "checkpoint_steps": max(1, harness.cut_step // 3)}
        spec = spec.model_copy(update={"train": spec.train.model_copy(update={**long, "patience": 0})})
    files = dict(small.files)
    if bad_data:
        broken = harness.folder / "broken.jsonl"
        broken.write_bytes(files[spec.data.train].read_bytes() + b'{"text": "this row never ends\n')
        files[spec.data.train] = broken
    submission = Submission(
        job_name=name,
        spec=spec,
        files={file: hashlib.sha256(path.read_bytes()).hexdigest() for file, path in files.items()},
        image=small.image,
        resources=small.resources,
        max_seconds=max_seconds,
        secrets=(SECRET,) if secret else (),
        options=small.options,
    )
    backend = harness.fresh()
    plan = backend.plan(submission)
    return Prepared(submission, backend.resolve(plan) if plan.unresolved else plan, files)


def start(harness: Harness, job: Prepared) -> Handle:
    """Stage and submit with a fresh backend."""
    backend = harness.fresh()
    harness.runs.started.append(job.plan.job_name)
    backend.stage(job.plan, job.files)
    return backend.submit(job.plan, secret_values(harness, job))


def secret_values(harness: Harness, job: Prepared) -> dict[str, SecretStr]:
    """The values of the secrets that the job names."""
    return dict.fromkeys(job.submission.secrets, harness.secret)
