"""What the backends of clouds share: a job is a row of runs at the service, and a resume adds one.

None of these services starts a job a second time, so a resume is another job there, with the request and the folder of
the one before. `Handle.data` lists the service's names of them (``runs``), beside the facts that lead to the account.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from backends import prices
from backends.home import data_home
from backends.interface import (
    Backend,
    BackendError,
    Capabilities,
    Handle,
    JobNotFound,
    Json,
    Offer,
    Plan,
    State,
    Status,
)

AccountT = TypeVar("AccountT")
RunT = TypeVar("RunT")
"""What the service tells of one run."""


class Cloud(Backend, Generic[AccountT, RunT]):
    """A backend, once the service's own calls are filled in."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        spot=True,
        several_machines=True,
        secrets=True,
        log_cursor=True,
        resume=True,
        partial_fetch=True,
        billable_seconds=True,
    )
    service: ClassVar[str]
    """Its name, for people."""

    @abstractmethod
    def _account(self, place: Json) -> AccountT:
        """The account that a request, a handle or a note leads to. Raises KeyError where a fact is missing."""

    @abstractmethod
    def _place(self, account: AccountT) -> Json:
        """The facts by which `_account` finds it."""

    def _default(self) -> AccountT | None:
        """The account to look in for a job that was submitted elsewhere; None where nothing leads to one."""
        return None

    @abstractmethod
    def _get(self, account: AccountT, name: str) -> RunT | None:
        """The run of that name; None if there is none."""

    @abstractmethod
    def _runs(self, account: AccountT, job_name: str) -> list[RunT]:
        """The runs of a job, from the first to the last."""

    @abstractmethod
    def _name(self, run: RunT) -> str:
        """The service's name of it."""

    @abstractmethod
    def _told(self, account: AccountT, run: RunT) -> Status:
        """How it stands, with the bill of this run alone."""

    @abstractmethod
    def _image(self, account: AccountT, run: RunT) -> str:
        """The image that it runs."""

    @abstractmethod
    def _digest(self, account: AccountT, image: str) -> str | None:
        """The image's digest in the cloud's registry."""

    @abstractmethod
    def _stop(self, account: AccountT, run: RunT) -> None:
        """Ask for a stop; one that has ended in this moment is no error."""

    @abstractmethod
    def _was_removed(self, account: AccountT, run: RunT) -> bool:
        """Whether `_free` was called for this job."""

    @abstractmethod
    def _go_on(self, account: AccountT, job_name: str, runs: list[RunT]) -> list[RunT]:
        """Create the next run with the request and the folder of the last one; gives them all."""

    @abstractmethod
    def _bring(self, account: AccountT, run: RunT, into: Path) -> None:
        """Fetch the output tree of an ended job."""

    @abstractmethod
    def _free(self, account: AccountT, run: RunT) -> None:
        """Mark the ended job as removed, and delete its secrets and checkpoints."""

    def find(self, job_name: str) -> Handle | None:
        """Ask for the runs of that job where it was to be submitted."""
        account = self._noted(job_name)
        if account is None:
            return None
        runs = self._runs(account, job_name)
        return self._of_runs(account, job_name, runs) if runs else None

    def status(self, handle: Handle) -> Status:
        """Ask for the last run; billed seconds are those of all runs and machines."""
        account, names = self._of_handle(handle)
        last = self._told(account, self._existing(account, names[-1]))
        if last.billable_seconds is None:
            return last
        before = (self._told(account, self._existing(account, name)) for name in names[:-1])
        seconds = sum((each.billable_seconds or 0.0 for each in before), last.billable_seconds)
        return last.model_copy(update={"billable_seconds": seconds})

    def cancel(self, handle: Handle) -> None:
        """Ask the service to stop the last run."""
        account, names = self._of_handle(handle)
        run = self._existing(account, names[-1])
        if not self._told(account, run).state.ended:
            self._stop(account, run)

    def resume(self, handle: Handle) -> Handle:
        """Create the next run with the same request and checkpoints."""
        account, names = self._of_handle(handle)
        runs = self._runs(account, handle.job_name)
        if len(runs) < len(names):
            raise self._unknown(handle.job_name)
        state = self._told(account, runs[-1]).state
        if state.ended and state is not State.SUCCEEDED:
            if self._was_removed(account, runs[-1]):
                raise BackendError(f"the checkpoints of {handle.job_name} were removed", hint="run the job again")
            runs = self._go_on(account, handle.job_name, runs)
        return self._of_runs(account, handle.job_name, runs)

    def fetch(self, handle: Handle, into: Path) -> None:
        """Fetch the output tree from the cloud's storage, each file checked."""
        self._bring(*self._ended(handle, "ftlaunch logs -f"), into)

    def remove(self, handle: Handle) -> None:
        """Delete the ended job's secrets and checkpoints; its results stay in the storage."""
        self._free(*self._ended(handle, "ftlaunch cancel"))

    def offers(self, region: str | None) -> Iterable[Offer]:
        """The machines with GPUs and their bundled prices."""
        return prices.offers(self.name, region)

    def _to_submit(self, plan: Plan) -> AccountT:
        """The account to submit the plan in, noted for a launcher that is killed before it hears of the job."""
        if plan.unresolved:
            raise BackendError("the plan has unresolved values", hint=plan.unresolved[0].hint)
        account = self._account(plan.request)
        note = self._notes / f"{plan.job_name}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(self._place(account)))
        return account

    @property
    def _notes(self) -> Path:
        return data_home() / self.name

    def _noted(self, job_name: str) -> AccountT | None:
        """The account in which the job was to be submitted."""
        note = self._notes / f"{job_name}.json"
        return self._account(json.loads(note.read_text())) if note.exists() else self._default()

    def _of_runs(self, account: AccountT, job_name: str, runs: list[RunT]) -> Handle:
        return self._handle(account, job_name, [self._name(run) for run in runs], self._image(account, runs[0]))

    def _of_listed(
        self, account: AccountT, listed: Iterable[tuple[str, RunT]], created: Callable[[RunT], Any]
    ) -> Iterator[Handle]:
        """The jobs of a service's listing of runs, each with its job's name; a job's runs by when they were created."""
        runs: dict[str, list[RunT]] = defaultdict(list)
        for name, run in listed:
            runs[name].append(run)
        for name, found in runs.items():
            yield self._of_runs(account, name, sorted(found, key=created))

    def _handle(self, account: AccountT, job_name: str, runs: list[str], image: str) -> Handle:
        data = self._place(account) | {"runs": runs, "image": image, "image_digest": self._digest(account, image)}
        return Handle(backend=self.name, job_name=job_name, data=data)

    def _of_handle(self, handle: Handle) -> tuple[AccountT, list[str]]:
        """The account, and the names of the runs."""
        try:
            return self._account(handle.data), [str(name) for name in handle.data["runs"]]
        except (KeyError, TypeError) as error:
            message = f"the record of {handle.job_name} does not say where it runs"
            raise BackendError(message, hint="run the job again; it is found by its name") from error

    def _existing(self, account: AccountT, name: str) -> RunT:
        run = self._get(account, name)
        if run is None:
            raise self._unknown(name)
        return run

    def _unknown(self, name: str) -> JobNotFound:
        return JobNotFound(f"{self.service} knows no job {name}", hint="ftlaunch jobs lists those that were started")

    def _ended(self, handle: Handle, command: str) -> tuple[AccountT, RunT]:
        account, names = self._of_handle(handle)
        run = self._existing(account, names[-1])
        if not self._told(account, run).state.ended:
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"{command} {handle.job_name}")
        return account, run
