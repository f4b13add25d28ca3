"""From a job file to a running job, so that a crash at any point neither loses a job nor starts it twice.

plan (pure) -> preflight -> record the intent -> stage -> submit -> record the handle. What follows the submit is in
`launcher.watch` and `launcher.results`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import registry
from backends.interface import Backend, BackendError, Finding, Handle, Plan, Reason, State
from launcher import secret_values, submission
from launcher.job import JobFile
from launcher.results import prepare_target
from launcher.store import Record, Store
from training_image.errors import InputError

Say = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True)
class Planned:
    """A job with the exact request that would start it."""

    file: JobFile
    backend: Backend
    content: submission.Content
    attempt: int
    plan: Plan
    earlier: tuple[Record, ...]
    """The attempts at the same content so far, first one first."""

    @property
    def live(self) -> Record | None:
        """The attempt that has not ended."""
        return next((record for record in self.earlier if record.ended is None), None)

    def document(self) -> dict[str, Any]:
        """The document of ``run --dry-run --json``."""
        return {
            "job": self.plan.job_name,
            "backend": self.plan.backend,
            "request": self.plan.request,
            "unresolved": [each.model_dump() for each in self.plan.unresolved],
            "image": self.plan.image,
            "inputs": self.plan.inputs,
            "estimate": None,
        }


def make_plan(file: JobFile, store: Store | None) -> Planned:
    """Plan a job: reads its files and the store, and nothing else."""
    backend = registry.load(file.job.backend).create()
    content = submission.content(file, backend, store)
    earlier = tuple(store.of_content(content.digest)) if store else ()
    live = next((record for record in earlier if record.ended is None), None)
    attempt = live.attempt if live else len(earlier)
    name = submission.job_name(file.stem, content.digest, attempt)
    with needing_extra(backend):
        plan = backend.plan(submission.submission(file, backend, content, name))
    return Planned(file, backend, content, attempt, plan, earlier)


def check_data(planned: Planned, say: Say) -> None:
    """Look at every row before a place with a bill does; a place without one looks itself, at once and for nothing.

    Raises InputError for a job that cannot be trained on.
    """
    if not planned.backend.capabilities.billable_seconds or planned.live is not None:
        return
    try:
        from training_image.data.check import check
    except ModuleNotFoundError as error:
        say(f"the data is not checked before the start: that needs {error.name} (pip install 'ftlaunch[local]')")
        return
    report = check(submission.with_own_paths(planned.file), Path.cwd())
    for finding in report.findings:
        if finding.level == "warning":
            say(f"warning: {finding.message}")
    errors = [finding for finding in report.findings if finding.level == "error"]
    if errors:
        message = "\n  ".join(f"{error.message} {error.hint}".strip() for error in errors)
        raise InputError(f"the job cannot be trained on:\n  {message}", hint=f"ftlaunch check {planned.file.path}")


def launch(planned: Planned, store: Store, output: Path | None, say: Say) -> Record:
    """Start the job, or find the one that is running already.

    Raises InputError for what the user has to correct, BackendError for what the place refuses.
    """
    if planned.live is not None:
        return _go_on(planned, planned.live, store, say)
    plan, backend, job = planned.plan, planned.backend, planned.file.job
    target = output.absolute() if output else Path.cwd() / "runs" / plan.job_name
    prepare_target(target)
    secrets = secret_values.required(job.secrets)
    with needing_extra(backend):
        plan = _resolved(backend, plan, say)
        _report(backend.preflight(plan), backend, say)
    intent = Record(
        job=plan.job_name,
        content=planned.content.digest,
        attempt=planned.attempt,
        backend=backend.name,
        job_file=str(planned.file.path),
        as_submitted=planned.file.as_submitted(),
        plan=plan,
        secrets=list(job.secrets),
        target=str(target),
        native_state="not submitted",
    )
    with _alone(store, intent.job, say):
        record = store.add(intent)
        if record.submitted is not None:
            say(f"{record.job} was started by another launcher; following it")
            return record
        with needing_extra(backend):
            return _start(backend, record, store, planned.content.files, secrets)


def _go_on(planned: Planned, record: Record, store: Store, say: Say) -> Record:
    """Go on with a live job: one that runs, or an intent whose launcher died before it heard from the place."""
    with _alone(store, record.job, say):
        record = store.get(record.job) or record
        if record.submitted is not None:
            say(f"{record.job} is running already; following it")
            return record
        backend = planned.backend
        with needing_extra(backend):
            found = backend.find(record.job)
            if found is not None:
                say(f"{record.job} was started before a crash; following it")
                return _submitted(backend, record, store, found)
            say(f"{record.job} was not started before a crash; starting it now")
            secrets = secret_values.required(record.secrets)
            return _start(backend, record, store, planned.content.files, secrets)


def resume(record: Record, store: Store, say: Say) -> Record:
    """Let an ended job go on from its last checkpoint. Raises InputError where that cannot be."""
    backend = registry.load(record.backend).create()
    if not backend.capabilities.resume or record.handle is None:
        raise InputError(f"{record.job} cannot be resumed", hint="run it again without --resume")
    if record.state is State.SUCCEEDED:
        raise InputError(f"{record.job} has succeeded; there is nothing to resume", hint="run it without --resume")
    with _alone(store, record.job, say), needing_extra(backend):
        handle = backend.resume(record.handle)
        if record.output is not None and Path(record.output).is_dir():
            aside = Path(f"{record.output}-{int(time.time())}")
            Path(record.output).rename(aside)
            say(f"what was fetched before is now in {aside}")
        record = store.update(record.job, handle=handle, output=None, ended=None)
        return store.observe(record.job, backend.status(handle))


@contextlib.contextmanager
def needing_extra(backend: Backend) -> Iterator[None]:
    """Name the extra that a backend's missing import belongs to."""
    try:
        yield
    except ModuleNotFoundError as error:
        hint = f"pip install 'ftlaunch[{backend.extra}]'"
        raise InputError(f"the backend {backend.name!r} needs the package {error.name!r}", hint=hint) from error


def _alone(store: Store, job: str, say: Say) -> contextlib.AbstractContextManager[None]:
    return store.lock(job, lambda: say(f"another launcher is starting {job}; waiting for it"))


def _start(
    backend: Backend, record: Record, store: Store, files: dict[str, Path], secrets: secret_values.Secrets
) -> Record:
    """Stage and submit; an answer that got lost is asked for by name before the job counts as refused."""
    try:
        assert record.plan is not None  # an intent has one
        backend.stage(record.plan, files)
        handle = backend.submit(record.plan, secrets)
    except BackendError as error:
        found = backend.find(record.job)  # if this fails too the intent stays, and the next run asks again
        if found is None:
            store.update(
                record.job,
                state=State.FAILED,
                reason=error.reason,
                message=secret_values.mask(error.message, secrets),
                ended=time.time(),
            )
            raise
        handle = found
    return _submitted(backend, record, store, handle)


def _submitted(backend: Backend, record: Record, store: Store, handle: Handle) -> Record:
    store.update(record.job, handle=handle, submitted=time.time(), state=State.STARTING, native_state="")
    return store.observe(record.job, backend.status(handle))


def _resolved(backend: Backend, plan: Plan, say: Say) -> Plan:
    if plan.unresolved:
        plan = backend.resolve(plan)
        for path in sorted({each.path for each in plan.unresolved}):
            say(f"not given, and not known to the place: {path}")
    if plan.unresolved:
        missing = "\n  ".join(f"{each.path}: {each.hint}" for each in plan.unresolved)
        raise InputError(
            f"the request is not complete:\n  {missing}", hint="set them in the job file or in config.yaml"
        )
    return plan


def _report(findings: list[Finding], backend: Backend, say: Say) -> None:
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in findings:
        if finding.level != "error":
            say(f"{finding.level}: {finding.message}" + (f" ({finding.hint})" if finding.hint else ""))
    if errors:
        message = "\n  ".join(f"{error.message}; {error.hint}" for error in errors)
        reason = Reason.CREDENTIALS if any(error.code == "credentials" for error in errors) else Reason.UNKNOWN
        raise BackendError(f"{backend.name} would refuse the job:\n  {message}", reason=reason)
