"""The embedded default: the training runs as a child process on this machine, no account and no container.

A small supervisor (`backends.local_supervisor`) is the training's parent, so that a closed terminal or a killed
launcher does not end the job. Everything of a job lies in one folder, ``FTLAUNCH_HOME/local/JOB``::

    start.json state.json spec.json log.txt    the request, how it stands, what the container reads, its lines
    program/ data/ checkpoints/ output/         our training code as it was, staged files, checkpoints, results
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr

import training_image
from backends import local_supervisor, secret_values, staged_files, supervised
from backends.home import data_home
from backends.interface import (
    Backend,
    BackendError,
    BackendOptions,
    Capabilities,
    Cursor,
    Finding,
    Handle,
    JobNotFound,
    Json,
    LogLine,
    Offer,
    Plan,
    Reason,
    State,
    Status,
    Submission,
)
from backends.local_checks import findings


class LocalOptions(BackendOptions):
    """``backends.local``."""

    python: str | None = Field(None, description="Python that trains; default: the one that runs ftlaunch.")
    threads: int | None = Field(None, ge=1, description="Threads of the training; default: as many as torch takes.")
    grace_seconds: float = Field(120, gt=0, description="Seconds between asking the training to stop and killing it.")


class Local(Backend):
    """Trains on this machine."""

    name: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities(log_cursor=True, resume=True, partial_fetch=True, image=False)
    options: ClassVar[type[BackendOptions]] = LocalOptions
    summary: ClassVar[str] = "this machine, in a process of its own; no account, no container, no bill"
    extra: ClassVar[str] = "local"

    def plan(self, submission: Submission) -> Plan:
        """The command line, environment and folders of the training process."""
        options = LocalOptions.model_validate(submission.options)
        folder = _root() / submission.job_name
        python = options.python or sys.executable
        folders = {"spec": "spec.json", "data": "data", "output": "output", "checkpoints": "checkpoints"}
        places = [part for name, path in folders.items() for part in (f"--{name}", str(folder / path))]
        environment = {"PYTHONPATH": str(folder / "program"), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
        if options.threads is not None:
            environment["OMP_NUM_THREADS"] = str(options.threads)
        request: Json = {
            "argv": [python, "-m", "training_image", "train", *places],
            "working_directory": str(folder),
            "environment": environment,
            "inherits_environment": True,
            "secrets": dict.fromkeys(submission.secrets, "***"),
            "max_seconds": submission.max_seconds,
            "grace_seconds": options.grace_seconds,
            "machines": submission.resources.machines,
            "gpu": submission.resources.gpu,
        }
        return Plan(
            backend=self.name,
            job_name=submission.job_name,
            request=request,
            inputs=submission.files,
            spec=submission.spec,
            max_seconds=submission.max_seconds,
        )

    def resolve(self, plan: Plan) -> Plan:
        """Nothing is unresolved here."""
        return plan

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look at the Python that trains, at the free disk space, and at what one machine cannot give."""
        return findings(plan, _root())

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Lay the files under their names; contents are kept once for all jobs."""
        folder = _root() / plan.job_name
        if (folder / "state.json").exists():
            return
        with _disk_errors(folder):
            for name in ("data", "checkpoints", "output"):  # no files are staged where all comes from the hub
                (folder / name).mkdir(parents=True, exist_ok=True)
            staged_files.place(plan.inputs, files, folder / "data")
            program = folder / "program" / "training_image"
            if not program.exists():
                new = folder / "program.new"
                shutil.rmtree(new, ignore_errors=True)
                source = Path(training_image.__file__).parent
                shutil.copytree(source, new / "training_image", ignore=shutil.ignore_patterns("__pycache__"))
                new.rename(folder / "program")
            (folder / "spec.json").write_text(plan.spec.model_dump_json(by_alias=True, indent=1))

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Start the supervisor, which starts the training."""
        if plan.unresolved:
            raise BackendError("the plan has unresolved values", hint=plan.unresolved[0].hint)
        folder = _root() / plan.job_name
        if not (folder / "spec.json").exists():
            raise BackendError(f"the files of {plan.job_name} are not staged", hint="run the job again")
        with (folder / "submit.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "state.json").exists():
                request = plan.request
                start = {key: request[key] for key in ("argv", "environment", "max_seconds", "grace_seconds")}
                (folder / "start.json").write_text(json.dumps(start | {"secrets": list(request["secrets"])}))
                _start(folder, secrets)
        return self._handle(folder)

    def find(self, job_name: str) -> Handle | None:
        """A job is there once its supervisor has written down that it started."""
        folder = _root() / job_name
        return self._handle(folder) if (folder / "state.json").exists() else None

    def known(self) -> Iterable[Handle]:
        """The jobs with a record below ``FTLAUNCH_HOME``."""
        return [self._handle(path.parent) for path in sorted(_root().glob("*/state.json"))]

    def status(self, handle: Handle) -> Status:
        """Read the supervisor's record, and whether the supervisor lives."""
        folder = _folder(handle)
        alive = _held(folder / "supervisor.lock")  # asked first: what a dead supervisor wrote is final
        state: Json = json.loads((folder / "state.json").read_text())
        if state["ended"] is not None and not alive:
            return supervised.ended(folder, state)
        if not alive and _held(folder / "training.lock"):
            return Status(state=State.STOPPING, native_state="orphan", message="its supervisor was killed; it saves")
        if not alive:
            message = "the job's supervisor was killed, or the machine was restarted"
            return Status(state=State.FAILED, reason=Reason.UNKNOWN, native_state="lost", message=message)
        if (folder / "cancel").exists():
            return Status(state=State.STOPPING, native_state="stopping", message="asked to stop; it saves first")
        if state["training_pid"] is None:
            return Status(state=State.STARTING, native_state="starting")
        return Status(state=State.RUNNING, native_state="running")

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The lines of ``log.txt``; a cursor is the byte where the next line starts."""
        yield from supervised.log_lines(_folder(handle) / "log.txt", after)

    def cancel(self, handle: Handle) -> None:
        """Ask the supervisor, by a file, to stop the training."""
        folder = _folder(handle)
        if not self.status(handle).state.ended:
            (folder / "cancel").touch()

    def resume(self, handle: Handle) -> Handle:
        """Start the supervisor again; the training finds its checkpoint."""
        folder = _folder(handle)
        state = self.status(handle).state
        if not state.ended or state is State.SUCCEEDED:
            return handle
        if not (folder / "data").exists():
            raise BackendError(f"the files of {handle.job_name} were removed", hint="run the job again")
        secrets = secret_values.required(json.loads((folder / "start.json").read_text())["secrets"])
        (folder / "cancel").unlink(missing_ok=True)
        _start(folder, secrets)
        return handle

    def fetch(self, handle: Handle, into: Path) -> None:
        """Copy the output tree; what is there already in full is left alone."""
        if not self.status(handle).state.ended:
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch logs -f {handle.job_name}")
        output = _folder(handle) / "output"
        if not output.exists():
            raise BackendError(
                f"the results of {handle.job_name} were removed here after they were fetched",
                hint=f"ftlaunch status {handle.job_name} --json names the folder they were fetched into",
            )
        staged_files.bring(output, into)

    def remove(self, handle: Handle) -> None:
        """Free the disk: data, checkpoints and results go, the record and the log stay."""
        folder = _root() / handle.job_name
        if not (folder / "state.json").exists():
            return
        if not self.status(handle).state.ended:
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch cancel {handle.job_name}")
        for name in ("data", "checkpoints", "output", "program"):
            shutil.rmtree(folder / name, ignore_errors=True)
        staged_files.sweep()

    def _handle(self, folder: Path) -> Handle:
        return Handle(backend=self.name, job_name=folder.name, data={"folder": str(folder)})

    def offers(self, region: str | None) -> Iterable[Offer]:
        """This machine, which nobody bills."""
        gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        models = {line.partition(":")[2].strip() for path in gpus for line in path.read_text().splitlines()[:1]}
        yield Offer(
            backend=self.name,
            machine="this machine",
            region=None,
            gpu=", ".join(sorted(models)) or None,
            gpu_count=len(gpus),
            usd_per_hour=None,
            kind="free",
            as_of="",
            source="a place without a bill",
        )


def _root() -> Path:
    return data_home() / "local"


def _folder(handle: Handle) -> Path:
    folder = Path(str(handle.data.get("folder") or _root() / handle.job_name))
    if not (folder / "state.json").exists():
        raise JobNotFound(f"this machine knows no job {handle.job_name!r}", hint="ftlaunch jobs lists those it knows")
    return folder


def _held(lock: Path) -> bool:
    """Whether supervisor or training live: each holds its lock until it ends, however it ends."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _start(folder: Path, secrets: Mapping[str, SecretStr]) -> None:
    script = str(Path(local_supervisor.__file__))
    with (folder / "supervisor.log").open("ab") as log:
        command = [sys.executable, "-I", script, str(folder)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {name: value.get_secret_value() for name, value in secrets.items()},
            check=False,
        )
    if done.returncode:
        raise BackendError("the supervisor did not start", hint=f"see {folder / 'supervisor.log'}")


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendError(
            f"cannot write to {folder}: {error.strerror or error}",
            hint="free some space or make it writable; FTLAUNCH_HOME moves the folder",
        ) from error
