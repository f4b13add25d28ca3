"""The jobs that all promises share: each is run once, when a promise first asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from backends.conformance.crash import Launch
from backends.conformance.jobs import Run, Tried, Watch, attempt, prepare, secret_values, start, within
from backends.conformance.probe import Answer, Question
from backends.conformance.promise import Violation, expect
from backends.interface import Handle, Json, Status

if TYPE_CHECKING:
    from backends.conformance.harness import Census, Harness, SmallJob

T = TypeVar("T")

LONG_AGO = 1_000_000_000.0
"""The moment in 2001, in Unix seconds, at which the plan is made in an interpreter of its own."""


@dataclass(slots=True)
class Repeated:
    """A job submitted again and again, and cancelled at once."""

    before: Tried[Handle | None]
    """What `find` gave before the submit."""
    handle: Handle
    after: Tried[Handle | None]
    again: Tried[Handle]
    """The second submit, by the same backend."""
    census_again: Census
    anew: Tried[Handle]
    """The third submit, by a backend made afresh: the launcher after a crash."""
    census_anew: Census
    run: Run


@dataclass(slots=True)
class Raced:
    """A job with bad data, submitted by two launchers at the same moment."""

    handles: list[Tried[Handle]]
    run: Run


@dataclass(slots=True)
class Cancelled:
    """A long job, cancelled in the middle."""

    logs_ended: bool
    """Whether the log's iterator ended while the job ran on."""
    state_then: Status
    resumed: Tried[Handle]
    """What `resume` gave while the job ran (only with the capability)."""
    census_then: Census
    again: Tried[bool]
    """The second cancel, right after the first."""
    late: Tried[bool]
    """The third cancel, after the end."""
    run: Run


@dataclass(slots=True)
class Resumed:
    """A job that was broken off, and went on."""

    broken: Run
    run: Run
    result: Json
    """Its result.json."""

    @property
    def resumed_from(self) -> int | None:
        """The step of the checkpoint it went on from."""
        step = self.result["training"]["resumed_from"]
        return None if step is None else int(step)


class Runs:
    """The shared jobs of one harness. A failure to run one is kept too, and raised again for each who asks."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._made: dict[str, Tried[Any]] = {}
        self.started: list[str] = []
        """Names of all jobs that the suite tried to start."""

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Make it at the first call and keep it."""
        if name not in self._made:
            self._made[name] = attempt(make)
        kept = self._made[name]
        if kept.error is not None:
            raise kept.error
        return cast("T", kept.value)

    @cached_property
    def small(self) -> SmallJob:
        """The author's small job."""
        return self._harness.small_job()

    @property
    def probe(self) -> Answer:
        """The plan of the good job, made in an interpreter of its own: at another time, with another hash seed."""

        def ask() -> Answer:
            kind = self._harness.backend
            question = Question(
                module=kind.__module__,
                name=kind.__qualname__,
                submission=prepare(self._harness, "plan", secret=True).submission,
                now=LONG_AGO,
            )
            environment = self._harness.child_environment()
            environment["PYTHONHASHSEED"] = "1" if environment.get("PYTHONHASHSEED") == "0" else "0"
            done = subprocess.run(
                [sys.executable, "-c", "from backends.conformance.probe import main; main()"],
                input=question.model_dump_json(by_alias=True),
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )
            expect(done.returncode == 0, f"the plan failed in a fresh interpreter:\n{done.stderr[-2000:]}")
            told = Answer.model_validate_json(done.stdout.splitlines()[-1])
            expect(told.plan is not None, f"the plan failed in a fresh interpreter: {told.error}")
            return told

        return self.once("probe", ask)

    @property
    def finished(self) -> Run:
        """The good job, followed to its end and a little further."""

        def run() -> Run:
            job = prepare(self._harness, "good", secret=True)
            watch = Watch(self._harness, start(self._harness, job))
            ended = watch.finish(job)
            ended.afterwards = [watch.look() for _ in range(4)]
            return ended

        return self.once("finished", run)

    @property
    def output(self) -> Path:
        """The good job's output, fetched."""

        def fetch() -> Path:
            return self.fetch(self.finished.handle, "good")

        return self.once("output", fetch)

    @property
    def repeated(self) -> Repeated:
        """A job submitted again and again, and cancelled at once."""
        return self.once("repeated", self._repeat)

    def _repeat(self) -> Repeated:
        harness = self._harness
        job = prepare(harness, "again", steps=harness.long_steps)
        name, secrets = job.plan.job_name, secret_values(harness, job)
        backend = harness.fresh()
        before = attempt(lambda: backend.find(name))
        self.started.append(name)
        backend.stage(job.plan, job.files)
        handle = backend.submit(job.plan, secrets)
        after = attempt(lambda: harness.fresh().find(name))
        again = attempt(lambda: backend.submit(job.plan, secrets))
        census_again = harness.census(name)
        anew = attempt(lambda: harness.fresh().submit(job.plan, secrets))
        census_anew = harness.census(name)
        harness.fresh().cancel(handle)
        run = Watch(harness, handle).finish(job)
        return Repeated(before, handle, after, again, census_again, anew, census_anew, run)

    @property
    def raced(self) -> Raced:
        """A job with bad data, submitted by two launchers at the same moment."""
        return self.once("raced", self._race)

    def _race(self) -> Raced:
        harness = self._harness
        job = prepare(harness, "bad", bad_data=True)
        self.started.append(job.plan.job_name)
        harness.fresh().stage(job.plan, job.files)
        barrier = threading.Barrier(2)
        handles: list[Tried[Handle]] = []

        def launch() -> None:
            backend = harness.fresh()
            barrier.wait()
            handles.append(attempt(lambda: backend.submit(job.plan, secret_values(harness, job))))

        threads = [threading.Thread(target=launch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        started = next((tried.value for tried in handles if tried.value is not None), None)
        if started is None:
            raise Violation(f"neither of two submits at the same moment started the job: {handles[0].error!r}")
        return Raced(handles, Watch(harness, started).finish(job))

    @property
    def cancelled(self) -> Cancelled:
        """A long job, cancelled in the middle."""
        return self.once("cancelled", self._cancel)

    def _cancel(self) -> Cancelled:
        harness = self._harness
        job = prepare(harness, "stop", steps=harness.long_steps)
        handle = start(harness, job)
        watch = Watch(harness, handle)
        watch.to_step(harness.cut_step)
        logs_ended = within(harness.answer_seconds, lambda: list(harness.fresh().logs(handle, None)))
        state_then = watch.look()
        resumed = Tried[Handle]()
        if harness.backend.capabilities.resume:
            resumed = attempt(lambda: harness.fresh().resume(handle))
        census_then = harness.census(handle.job_name)
        harness.fresh().cancel(handle)
        again = attempt(lambda: harness.fresh().cancel(handle) is None)
        run = watch.finish(job)
        late = attempt(lambda: harness.fresh().cancel(handle) is None)
        return Cancelled(logs_ended, state_then, resumed, census_then, again, late, run)

    @property
    def resumed(self) -> Resumed:
        """The cancelled job, resumed."""
        return self.once("resumed", lambda: self._resume(self.cancelled.run))

    @property
    def killed(self) -> Run:
        """A long job whose machine was killed."""

        def kill() -> Run:
            lever = self._harness.levers().kill_machine
            if lever is None:
                raise Violation("capabilities.resume is promised, but the harness lacks the lever kill_machine")
            return self._break("kill", lever)

        return self.once("killed", kill)

    @property
    def killed_resumed(self) -> Resumed:
        """The killed job, resumed."""
        return self.once("killed resumed", lambda: self._resume(self.killed))

    @property
    def interrupted(self) -> Resumed:
        """A job on a spot machine that was taken away; resumed, unless the place itself has done so."""

        def interrupt() -> Resumed:
            lever = self._harness.levers().interrupt_spot
            if lever is None:
                raise Violation("capabilities.spot is promised, but the harness lacks the lever interrupt_spot")
            return self._resume(self._break("spot", lever))

        return self.once("interrupted", interrupt)

    def _break(self, kind: str, lever: Callable[[Handle], None]) -> Run:
        job = prepare(self._harness, kind, steps=self._harness.long_steps)
        handle = start(self._harness, job)
        watch = Watch(self._harness, handle)
        watch.to_step(self._harness.cut_step)
        lever(handle)
        return watch.finish(job)

    def _resume(self, broken: Run) -> Resumed:
        run = broken
        if broken.end.state != "SUCCEEDED":
            handle = self._harness.fresh().resume(broken.handle)
            cursor = broken.lines[-1].cursor if broken.lines else None
            run = Watch(self._harness, handle, cursor=cursor).finish(broken.job)
        folder = self.fetch(run.handle, f"resumed-{run.handle.job_name}")
        return Resumed(broken, run, json.loads((folder / "result.json").read_text(encoding="utf-8")))

    @property
    def limited(self) -> Run:
        """A job that would run longer than it may."""

        def run() -> Run:
            harness = self._harness
            job = prepare(harness, "limit", steps=100_000, max_seconds=harness.limit_seconds)
            return Watch(harness, start(harness, job)).finish(job, harness.limit_seconds + harness.grace_seconds)

        return self.once("limited", run)

    @property
    def orphan(self) -> Run:
        """A good job whose launcher was killed right after the submit."""
        return self.once("orphan", self._orphan)

    def _orphan(self) -> Run:
        harness = self._harness
        job = prepare(harness, "orphan")
        name = job.plan.job_name
        self.started.append(name)
        launch = Launch(
            module=harness.backend.__module__, name=harness.backend.__qualname__, plan=job.plan, files=dict(job.files)
        )
        done = subprocess.run(
            [sys.executable, "-c", "from backends.conformance.crash import main; main()"],
            input=launch.model_dump_json(by_alias=True),
            capture_output=True,
            text=True,
            env=harness.child_environment(),
            check=False,
        )
        expect(done.returncode == -9, f"a launcher of its own failed to submit:\n{done.stderr[-2000:]}")
        handle = harness.fresh().find(name) or harness.fresh().submit(job.plan, {})
        return Watch(harness, handle).finish(job)

    def fetch(self, handle: Handle, name: str) -> Path:
        """Fetch into a folder of that name, alone in its parent."""
        folder = self._harness.folder / f"fetch-{name}" / "output"
        folder.mkdir(parents=True)
        self._harness.fresh().fetch(handle, folder)
        return folder

    def clean_up(self) -> None:
        """Stop and remove every job that was started."""
        for name in dict.fromkeys(self.started):
            attempt(partial(_remove, self._harness, name))


def _remove(harness: Harness, name: str) -> None:
    backend = harness.fresh()
    handle = backend.find(name)
    if handle is None:
        return
    if not backend.status(handle).state.ended:
        backend.cancel(handle)
    deadline = time.monotonic() + harness.grace_seconds
    while not backend.status(handle).state.ended and time.monotonic() < deadline:
        time.sleep(harness.poll_seconds)
    backend.remove(handle)
