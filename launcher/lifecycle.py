"""From a job file to a running job, so that a crash at any point neither loses a job nor starts it twice.

plan (pure) -> preflight -> record the intent -> stage -> submit -> record the handle. What follows the submit is in
`launcher.watch` and `launcher.results`.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends import registry, secret_values
from backends.home import config_home
from backends.interface import Backend, BackendError, Finding, Handle, JobNotFound, Plan, Reason, State
from launcher import submission
from launcher.cost import estimate as estimates
from launcher.cost.estimate import Estimate
from launcher.job import JobFile
from launcher.plugins import lacking_in_image
from launcher.results import prepare_target
from launcher.store import Record, Store
from training_image import loading
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
    estimate: Estimate | None = None

    @property
    def live(self) -> Record | None:
        """The attempt that has not ended."""
        return next((record for record in self.earlier if record.ended is None), None)

    @property
    def done(self) -> Record | None:
        """The last attempt that succeeded; None while one is live."""
        succeeded = (record for record in reversed(self.earlier) if record.state is State.SUCCEEDED)
        return next(succeeded, None) if self.live is None else None

    @property
    def bills(self) -> bool:
        """Whether the job costs money: its place sends bills, and its machine is not one that is free there."""
        offer = estimates.offer_of(self.plan, self.backend)
        return self.backend.bills and (offer is None or offer.kind != "free")

    def target(self, output: Path | None) -> Path:
        """The folder for the results: ``output``, else ``runs/JOB`` in the current one."""
        return output.absolute() if output else Path.cwd() / "runs" / self.plan.job_name

    def record(self, target: Path, native_state: str) -> Record:
        """The record of the job before any place has confirmed it."""
        return Record(
            job=self.plan.job_name,
            content=self.content.digest,
            attempt=self.attempt,
            backend=self.backend.name,
            job_file=str(self.file.path),
            as_submitted=self.file.as_submitted(),
            plan=self.plan,
            secrets=list(self.file.job.secrets),
            target=str(target),
            native_state=native_state,
            estimate=self.estimate,
            estimate_usd=estimates.expected_usd(self.estimate),
        )

    def document(self) -> dict[str, Any]:
        """The document of ``run --dry-run --json``."""
        return {
            "job": self.plan.job_name,
            "backend": self.plan.backend,
            "request": self.plan.request,
            "unresolved": [each.model_dump() for each in self.plan.unresolved],
            "image": self.plan.image,
            "inputs": self.plan.inputs,
            "estimate": self.estimate,
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
        sent = submission.submission(file, backend, content, name)
        plan = backend.plan(sent)
        limit = estimates.max_seconds(file, plan, backend)
        if limit != sent.max_seconds:
            plan = backend.plan(sent.model_copy(update={"max_seconds": limit}))
    found = estimates.estimate(file, plan, backend, store)
    return Planned(file, backend, content, attempt, plan, earlier, found)


def check_data(planned: Planned, say: Say) -> None:
    """Look at every row before a machine with a bill does; a place without one looks itself, at once and for nothing.

    Raises InputError for a job that cannot be trained on.
    """
    if not planned.bills or planned.live is not None:
        return
    try:
        from training_image.data.check import check

        with loading.quickly():
            report = check(submission.with_own_paths(planned.file), Path.cwd())
    except ModuleNotFoundError as error:
        say(f"the data is not checked before the start: that needs {error.name} (pip install 'ftlaunch[local]')")
        return
    for finding in report.findings:
        if finding.level == "warning":
            say(f"warning: {finding.message}")
    errors = [finding for finding in report.findings if finding.level == "error"]
    if errors:
        message = "\n  ".join(f"{error.message.rstrip('.')}. {error.hint}".strip() for error in errors)
        raise InputError(f"the job cannot be trained on:\n  {message}", hint=f"ftlaunch check {planned.file.path}")


def launch(planned: Planned, store: Store, output: Path | None, say: Say) -> Record:
    """Start the job, or find the one that is running already.

    Raises InputError for what the user has to correct, BackendError for what the place refuses.
    """
    if planned.live is not None:
        return _go_on(planned, planned.live, store, say)
    plan, backend, job = planned.plan, planned.backend, planned.file.job
    if (lacking := lacking_in_image(planned.file, backend)) is not None:
        raise lacking
    target = planned.target(output)
    _weigh(planned, say)
    prepare_target(target)
    secrets = secret_values.required(job.secrets)
    with needing_extra(backend):
        plan = _resolved(backend, plan, say)
        _report(backend.preflight(plan), backend, say)
        intent = _priced(replace(planned, plan=plan), store, say).record(target, "not submitted")
    with _alone(store, intent.job, say):
        record = store.add(intent)
        if record.submitted is not None:
            say(f"{record.job} was started by another launcher; following it")
            return record
        with needing_extra(backend):
            return _start(planned, record, store, secrets, say)


def _priced(planned: Planned, store: Store, say: Say) -> Planned:
    """With the estimate for the machine that only its place could tell. Raises InputError for a broken budget."""
    if planned.plan.machine is not None or planned.estimate is not None:
        return planned
    try:
        machine = planned.backend.machine(planned.plan)
    except BackendError as error:  # it may still be allowed to start the job
        say(f"warning: the job's machines, and so its price, are not known: {error.message}")
        return planned
    if machine is None:
        return planned
    plan = planned.plan.model_copy(update={"machine": machine})
    found = estimates.estimate(planned.file, plan, planned.backend, store)
    say(f"{planned.backend.name} {machine}: expected to be billed {estimates.told(found)}")
    priced = replace(planned, plan=plan, estimate=found)
    _weigh(priced, say)
    return priced


def _weigh(planned: Planned, say: Say) -> None:
    """Warn of a machine that is too small. Raises InputError for a broken budget."""
    estimates.require_budget(planned.file, planned.estimate)
    if warning := estimates.memory_warning(planned.estimate):
        say(f"warning: {warning}")


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
            return _start(planned, record, store, secrets, say)


def resume(planned: Planned, record: Record, store: Store, say: Say) -> Record:
    """Let an ended job go on from its last checkpoint. Raises InputError where that cannot be.

    A place may hold no more of a job that was fetched (`Backend.release`): it gets the same plan again then.
    """
    backend, handle = planned.backend, record.handle
    if not backend.capabilities.resume or handle is None:
        raise InputError(f"{record.job} cannot be resumed", hint="run it again without --resume")
    if record.state is State.SUCCEEDED:
        raise InputError(f"{record.job} has succeeded; there is nothing to resume", hint="run it without --resume")
    estimates.require_rest(planned.file, record, backend)
    with _alone(store, record.job, say), needing_extra(backend):
        # An intent again: where this launcher dies now, the place is asked by the job's name.
        store.update(record.job, submitted=None, ended=None)
        try:
            handle = backend.resume(handle)
        except BackendError as error:
            if isinstance(error, JobNotFound) and record.plan is not None and store.log(record.job).is_file():
                return _start_again(planned, record, store, say)
            found = backend.find(record.job)  # if this fails too the intent stays, and the next run asks again
            if found is None or backend.status(found).state.ended:
                _as_before(store, record)
                raise
            handle = found
        except (InputError, ModuleNotFoundError):  # a secret or a package is missing here
            _as_before(store, record)
            raise
        _set_aside(record, store, say)
        store.update(record.job, output=None, seconds_before=record.seconds)
        return _submitted(backend, record, store, handle)


def _as_before(store: Store, record: Record) -> None:
    """No intent any more: nothing was started."""
    store.update(record.job, submitted=record.submitted, ended=record.ended)


def _start_again(planned: Planned, record: Record, store: Store, say: Say) -> Record:
    """Start a job again that left its place with its fetch; `Backend.stage` lays its checkpoints there."""
    try:
        secrets = secret_values.required(record.secrets)
    except InputError:
        _as_before(store, record)
        raise
    say(f"{record.job} left {planned.backend.name} with its fetch; starting it there again, from its last checkpoint")
    _set_aside(record, store, say)
    again = store.update(record.job, output=None, cursor=None, seconds_before=record.seconds)
    return _start(planned, again, store, secrets, say)


def _set_aside(record: Record, store: Store, say: Say) -> None:
    """Rename what was fetched before, its log with it; the results that are to come take its place."""
    if record.output is not None and Path(record.output).is_dir():
        aside = Path(f"{record.output}-{int(time.time())}")
        Path(record.output).rename(aside)
        if store.log(record.job).is_file():
            shutil.copyfile(store.log(record.job), aside / "log.txt")
        say(f"what was fetched before is now in {aside}")


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


def _start(planned: Planned, record: Record, store: Store, secrets: secret_values.Secrets, say: Say) -> Record:
    """Stage and submit; an answer that got lost is asked for by name before the job counts as refused."""
    backend = planned.backend
    try:
        assert record.plan is not None  # an intent has one
        if backend.lacks_image(record.plan):
            _build_image(planned, record.plan, say)
        backend.stage(record.plan, planned.content.files)
        if _was_cancelled(store, record):
            raise BackendError(f"{record.job} was cancelled before it was started", hint="run it again")
        handle = backend.submit(record.plan, secrets)
    except BackendError as error:
        found = backend.find(record.job)  # if this fails too the intent stays, and the next run asks again
        if found is None and not _was_cancelled(store, record):
            store.update(
                record.job,
                state=State.FAILED,
                reason=error.reason,
                message=secret_values.mask(error.message, secrets),
                ended=time.time(),
            )
        if found is None:
            raise
        handle = found
    return _submitted(backend, record, store, handle)


def _was_cancelled(store: Store, record: Record) -> bool:
    """Whether ``ftlaunch cancel`` came while the files were being sent; it finds what starts after this look."""
    now = store.get(record.job)
    return now is not None and now.ended is not None


def _build_image(planned: Planned, plan: Plan, say: Say) -> None:
    """Build the image that the plan names. Raises BackendError where this ftlaunch makes another one."""
    from launcher import image

    made = submission.image_of(planned.file, planned.backend)
    if made.reference() != plan.image:
        message = f"{plan.job_name} was planned with the image {plan.image}; this ftlaunch makes {made.reference()}"
        raise BackendError(message, hint="run the job again: it starts anew with this image", reason=Reason.BAD_IMAGE)
    say(f"building the image {plan.image} (unless it is there already)")
    image.build(made)


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
        hint = f"set them in the job file or in {config_home() / 'config.yaml'}"
        raise InputError(f"the request is not complete:\n  {missing}", hint=hint)
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
