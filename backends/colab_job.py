"""A Colab job as this machine keeps it: what was sent, and a copy of all that its machine has shown so far.

Colab keeps nothing of a job, and its machine may vanish at any time. So each look at a job brings its log, and its
checkpoints when there are new ones, and the last look brings the results; everything is answered from here. One folder
a job, ``FTLAUNCH_HOME/colab/JOB``, laid out as a local job's (`backends.local`), and ``record.json``.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from backends import staged_files
from backends.home import data_home
from backends.interface import BackendError, JobNotFound, Plan, Status


class Units(BaseModel):
    """The account's compute units around a job."""

    before: float
    """Balance before the machine was taken."""
    others: float
    """Units an hour that the account used before that."""
    rate: float = 0.0
    """Units an hour that the job's machine added."""
    after: float | None = None
    """Balance after the machine was lost, or just before it was given back; other machines draw on it as well."""
    used: float = 0.0
    """What the job used, over all its machines: by their rate and time; by the balance for one that was lost."""


class Record(BaseModel):
    """What is known of a job beside its files."""

    plan: Plan
    intended: float | None = None
    """When a machine was first asked for, in Unix seconds, as all times here."""
    before: list[str] = []
    """The account's machines at that time, by endpoint."""
    endpoint: str | None = None
    """Of the job's machine; None: it has none."""
    gpu: str = ""
    """The machine's GPU by its driver."""
    started: float | None = None
    """When the training was last started; None: never, or a start or a resume is being tried."""
    log_before: int = 0
    """Bytes of the log that earlier machines wrote."""
    checkpoints: dict[str, int] = {}
    """The files of the checkpoints that were brought last, by their time."""
    pulled: float = 0.0
    """When that was."""
    pulling: float = 0.0
    """Seconds that it took."""
    cancelled: bool = False
    looked: float = 0.0
    """When the machine was last asked."""
    shown: Status | None = None
    """What it said."""
    units: Units | None = None

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self.shown is not None and self.shown.state.ended

    @property
    def may_have_machine(self) -> bool:
        """Whether a machine was asked for and not seen to be gone, though its endpoint may never have been told."""
        return self.intended is not None or self.endpoint is not None


class Job:
    """One job's folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = root() / name
        self.data = self.folder / "data"
        self.log = self.folder / "log.txt"
        self.checkpoints = self.folder / "checkpoints"
        self.output = self.folder / "output"
        self.secrets = self.folder / "secrets"
        """Their values, for the moment in which they are sent."""

    @property
    def record(self) -> Record:
        """As it was last written. Raises JobNotFound."""
        try:
            return Record.model_validate_json((self.folder / "record.json").read_bytes())
        except FileNotFoundError:
            hint = "ftlaunch jobs lists those it knows; only the machine that started a Colab job can ask for it"
            raise JobNotFound(f"this machine knows no Colab job {self.name!r}", hint=hint) from None

    def write(self, record: Record) -> Record:
        """Write it whole or not at all."""
        new = self.folder / "record.json.new"
        new.write_text(record.model_dump_json(by_alias=True))
        new.replace(self.folder / "record.json")
        return record

    def update(self, **changes: object) -> Record:
        """Change some of it."""
        return self.write(self.record.model_copy(update=changes))

    @contextlib.contextmanager
    def alone(self, wait: bool = True) -> Iterator[int]:
        """Be the only one that starts, looks at or ends this job; gives the lock's descriptor, for a child to hold.

        Raises JobNotFound, and BlockingIOError where another is at it and is not waited for.
        """
        _ = self.record
        with (self.folder / "job.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield lock.fileno()

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Lay the files for this machine and any later one. What is there in full is left alone."""
        for folder in (self.data, self.checkpoints, self.output):
            folder.mkdir(parents=True, exist_ok=True)
        staged_files.place(plan.inputs, files, self.data)
        try:
            staged = self.record
        except JobNotFound:
            staged = Record(plan=plan)
        if staged.intended is None and staged.started is None:
            self.write(staged.model_copy(update={"plan": plan}))

    def append_log(self, content: bytes) -> None:
        """Add lines to the log."""
        with self.log.open("ab") as file:
            file.write(content)

    def log_bytes(self) -> int:
        """Length of the log so far."""
        return self.log.stat().st_size if self.log.exists() else 0

    def take(self, archive: tarfile.TarFile, names: tuple[str, ...]) -> None:
        """Put the folders of an archive in the place of those that are here, each whole or not at all."""
        incoming = self.folder / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        archive.extractall(incoming, filter="data")
        for name in names:
            there, old = self.folder / name, self.folder / f"{name}.old"
            (incoming / name).mkdir(exist_ok=True)
            shutil.rmtree(old, ignore_errors=True)
            if there.exists():
                there.rename(old)
            (incoming / name).rename(there)
            shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(incoming)

    def drop_secrets(self) -> None:
        """Delete what a launcher left that was killed while it sent the secrets."""
        self.secrets.unlink(missing_ok=True)

    def free(self) -> None:
        """Free the disk: data, checkpoints and results go; the record and the log stay."""
        self.drop_secrets()
        for folder in (self.data, self.checkpoints, self.output):
            shutil.rmtree(folder, ignore_errors=True)
        staged_files.sweep()


def root() -> Path:
    """The folder of all Colab jobs."""
    return data_home() / "colab"


def sessions() -> Path:
    """Our file of the tool's sessions."""
    return root() / "sessions.json"


def every() -> list[Job]:
    """All jobs that this machine has started or meant to."""
    return [Job(path.parent.name) for path in sorted(root().glob("*/record.json"))]


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Tell a full or read-only disk as BackendError."""
    try:
        yield
    except OSError as error:
        message = f"cannot write to {root()}: {error.strerror or error}"
        raise BackendError(
            message, hint="free some space or make it writable; FTLAUNCH_HOME moves the folder"
        ) from error
