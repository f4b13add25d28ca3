"""Colab: a machine with a GPU for an account of Google's, a free one among them, by Google's own command line tool.

Colab knows machines and no jobs. A job is a supervisor with its training on one machine (`backends.colab_vm`), which
outlives the connection, and a copy of it here (`backends.colab_job`), which outlives the machine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from backends import colab_job, colab_request, colab_session, prices, secret_values, staged_files, supervised
from backends.colab_checks import findings
from backends.colab_job import Job
from backends.colab_request import ColabOptions
from backends.interface import (
    Backend,
    BackendError,
    BackendOptions,
    Capabilities,
    ContainerRequest,
    Cursor,
    Finding,
    Handle,
    JobNotFound,
    LogLine,
    Offer,
    Plan,
    State,
    Status,
    Submission,
)

FRESH = 1.0
"""Seconds for which an answer of the machine serves: status and log of one look come with one call."""


class Colab(Backend):
    """Trains on a machine of Colab's."""

    name: ClassVar[str] = colab_request.NAME
    capabilities: ClassVar[Capabilities] = Capabilities(log_cursor=True, resume=True, partial_fetch=True, image=False)
    options: ClassVar[type[BackendOptions]] = ColabOptions
    summary: ClassVar[str] = "a GPU of Google Colab's, free or by compute units; also as a notebook to run by hand"
    extra: ClassVar[str] = "colab"

    @property
    def bills(self) -> bool:
        """A machine costs compute units, which are bought; Colab does not tell for how long."""
        return True

    def plan(self, submission: Submission) -> Plan:
        """The machine, and what is started on it."""
        return colab_request.make_plan(submission)

    def container(self, plan: Plan) -> ContainerRequest:
        """The training as it is started once the packages are there."""
        return colab_request.container(plan)

    def resolve(self, plan: Plan) -> Plan:
        """Nothing is unresolved: the account is the tool's."""
        return plan

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look for the tool, its login, the units, and what Colab has not."""
        return findings(plan, colab_job.sessions())

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Keep the files here, for this machine and any that takes its place; Colab has nowhere to keep them."""
        job = Job(plan.job_name)
        with colab_job.disk_errors():
            job.stage(plan, files)

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Take a machine, send everything and start the training."""
        if plan.unresolved:
            raise BackendError("the plan has unresolved values", hint=plan.unresolved[0].hint)
        job = Job(plan.job_name)
        try:
            with job.alone() as locked, colab_job.disk_errors():
                if job.record.started is None and not self._was_started(job):
                    colab_session.begin(job, secrets, locked)
        except JobNotFound as error:
            raise BackendError(f"the files of {plan.job_name} are not staged", hint="run the job again") from error
        return self._handle(job)

    def find(self, job_name: str) -> Handle | None:
        """A job is there once its training was started. A machine that a launcher took and died before that is given
        back; one that is at it is waited for."""
        job = Job(job_name)
        with contextlib.suppress(JobNotFound), job.alone():
            return self._handle(job) if job.record.started is not None or self._was_started(job) else None
        return None

    def _was_started(self, job: Job) -> bool:
        """Find a start that nobody wrote down, or give the machine back that nothing was started on."""
        record = job.record
        if record.intended is None:
            return False
        if colab_session.is_started(job):
            job.update(started=record.intended)
            return True
        colab_session.give_back(job)
        return False

    def known(self) -> Iterable[Handle]:
        """The jobs that were started from here. A machine that a dead launcher or a failed stop left is given back.

        Raises BackendError behind the last job where one could not be asked about, or its machine not be given back.
        """
        complaints: list[BackendError] = []
        for job in colab_job.every():
            there = False
            with contextlib.suppress(BlockingIOError), job.alone(wait=False):
                try:
                    self._give_back_left(job)
                    there = job.record.started is not None or self._was_started(job)
                except BackendError as error:  # the other jobs may have machines too
                    there = job.record.started is not None
                    complaints.append(BackendError(f"{job.name}: {error.message}", error.hint, error.reason))
            if there:
                yield self._handle(job)
        if complaints:
            first = complaints[0]
            raise BackendError("; ".join(each.message for each in complaints), first.hint, first.reason)

    def _give_back_left(self, job: Job) -> None:
        """Give back the machine that an ended job still has. Raises BackendError."""
        if job.record.ended and job.record.may_have_machine:
            colab_session.give_back(job)

    def status(self, handle: Handle) -> Status:
        """The supervisor's word, as the machine tells it now; an ended job's, as it was told then."""
        shown = self._looked(handle).record.shown
        assert shown is not None
        return shown

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The lines so far; a cursor is the byte where the next line starts, over all machines of the job."""
        yield from supervised.log_lines(self._looked(handle).log, after)

    def cancel(self, handle: Handle) -> None:
        """Ask the supervisor on the machine to stop the training."""
        job = self._started(handle)
        with job.alone():
            if not job.record.ended:
                colab_session.cancel(job)

    def resume(self, handle: Handle) -> Handle:
        """Take another machine, and go on from the last checkpoint that was brought here."""
        job = self._looked(handle)
        record = job.record
        if record.shown is None or not record.ended or record.shown.state is State.SUCCEEDED:
            return handle
        if not job.data.exists():
            raise BackendError(f"the files of {job.name} were removed", hint="run the job again")
        secrets = secret_values.required(record.plan.request["secrets"])
        with job.alone() as locked, colab_job.disk_errors():
            if job.record.ended:
                colab_session.begin(job, secrets, locked)
        return handle

    def fetch(self, handle: Handle, into: Path) -> None:
        """Copy the output tree that came with the job's end."""
        job = self._looked(handle)
        if not job.record.ended:
            raise BackendError(f"{job.name} has not ended yet", hint=f"ftlaunch logs -f {job.name}")
        if not job.output.exists():
            raise BackendError(
                f"the results of {job.name} were removed here after they were fetched",
                hint=f"ftlaunch status {job.name} --json names the folder they were fetched into",
            )
        staged_files.bring(job.output, into)

    def remove(self, handle: Handle) -> None:
        """Give back what a failed stop left, and free the disk here; the record and the log stay."""
        job = Job(handle.job_name)
        with contextlib.suppress(JobNotFound), job.alone():
            record = job.record
            if record.started is not None and not record.ended:
                raise BackendError(f"{job.name} has not ended yet", hint=f"ftlaunch cancel {job.name}")
            if record.may_have_machine:
                colab_session.give_back(job)
            job.free()

    def release(self, handle: Handle) -> None:
        """Give back what a failed stop left; all else lies here, and is kept for a resume."""
        job = Job(handle.job_name)
        with contextlib.suppress(JobNotFound), job.alone():
            self._give_back_left(job)

    def notebook(self, plan: Plan, files: Mapping[str, Path], into: Path) -> list[Path]:
        """The notebook, and beside it the archive for Google Drive where the data is large."""
        from backends.colab_notebook import make_notebook

        notebook, archive = make_notebook(plan, files)
        written = [into / f"{plan.job_name}.ipynb"]
        written[0].write_text(notebook, encoding="utf-8")
        if archive is not None:
            written.append(into / f"{plan.job_name}-data.tar.gz")
            written[1].write_bytes(archive)
        return written

    def offers(self, region: str | None) -> Iterable[Offer]:
        """The machines by compute units, and the free one."""
        return prices.offers(self.name, region)

    def _handle(self, job: Job) -> Handle:
        return Handle(backend=self.name, job_name=job.name)

    def _started(self, handle: Handle) -> Job:
        job = Job(handle.job_name)
        if job.record.started is None:
            raise JobNotFound(f"{job.name} was never started", hint="run it again")
        return job

    def _looked(self, handle: Handle) -> Job:
        """The job, asked about just now if it has not ended."""
        job = self._started(handle)
        with colab_job.disk_errors():
            if not job.record.ended:
                with job.alone():
                    record = job.record
                    if not record.ended and (record.shown is None or time.time() - record.looked > FRESH):
                        colab_session.look(job)
        return job
