"""A small backend that keeps every promise, and the harness for it. The broken ones are this one, spoilt in one method.

Its place is a folder (``REFERENCE_PLACE``) in which each job has its own; the job is a real child process (worker.py).
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from backends.conformance import Census, Harness, Levers, SmallJob, small_job
from backends.interface import (
    Backend,
    BackendError,
    BackendOptions,
    Capabilities,
    Finding,
    Handle,
    JobNotFound,
    LogLine,
    Offer,
    Plan,
    Reason,
    State,
    Status,
    Submission,
    Unresolved,
)

WORKER = Path(__file__).with_name("worker.py")
TROUBLE: ContextVar[str] = ContextVar("trouble", default="")
"""What the way to the place suffers from now: throttle, drop, expired, full."""
CALLS: ContextVar[list[int]] = ContextVar("calls")


class VendorError(Exception):
    """What the place's own SDK would raise."""


class ReferenceOptions(BackendOptions):
    account: str | None = Field(None, description="The account that pays.")


class Reference(Backend):
    name: ClassVar[str] = "reference"
    capabilities: ClassVar[Capabilities] = Capabilities(
        spot=True,
        several_machines=False,
        secrets=True,
        log_cursor=True,
        resume=True,
        partial_fetch=True,
        billable_seconds=True,
    )
    options: ClassVar[type[BackendOptions]] = ReferenceOptions
    summary: ClassVar[str] = "keeps every promise"
    extra: ClassVar[str] = ""
    extra_request: ClassVar[dict[str, Any]] = {}

    def plan(self, submission: Submission) -> Plan:
        options = ReferenceOptions.model_validate(submission.options)
        hint = "set backends.reference.account in the job file"
        unresolved = () if options.account else (Unresolved(path="backends.reference.account", hint=hint),)
        request = {
            "account": options.account or "<reference.account>",
            "environment": dict.fromkeys(submission.secrets, "***"),
            "spec": submission.spec.model_dump(mode="json", by_alias=True),
            "max_seconds": submission.max_seconds,
            "step_seconds": 0.005,
        }
        return Plan(
            backend=self.name,
            job_name=submission.job_name,
            request=request,
            inputs=submission.files,
            image=submission.image,
            unresolved=unresolved,
            spec=submission.spec,
            max_seconds=submission.max_seconds,
        )

    def resolve(self, plan: Plan) -> Plan:
        return plan

    def preflight(self, plan: Plan) -> list[Finding]:
        return [Finding(level="note", code="quota", message="the quota is large enough")]

    def stage(self, plan: Plan, files) -> None:
        for name, digest in plan.inputs.items():
            blob = root() / "blobs" / digest
            target = root() / "staged" / plan.job_name / name
            if not blob.exists():
                self.send(plan, files[name], blob)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.link(blob, target)

    def send(self, plan: Plan, source: Path, blob: Path) -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        new = blob.with_name(f"{blob.name}-{plan.job_name}-{os.urandom(4).hex()}")
        shutil.copyfile(source, new)
        new.replace(blob)
        note(root() / "sent" / plan.job_name, f"{source.stat().st_size}\n")

    def submit(self, plan: Plan, secrets) -> Handle:
        if plan.unresolved:
            raise BackendError("the plan has unresolved values", hint=plan.unresolved[0].hint)
        if TROUBLE.get() == "full":
            raise BackendError("no machine is free", hint="try another region", reason=Reason.NO_CAPACITY)
        folder = root() / "jobs" / plan.job_name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "submit.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (folder / "request.json").exists():
                self.launch(folder, plan)
        return self.handle(folder)

    def launch(self, folder: Path, plan: Plan) -> None:
        shutil.copytree(root() / "staged" / plan.job_name, folder / "data", dirs_exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
        request = {**plan.request, **self.extra_request, "launcher": os.getpid()}
        (folder / "request.new").write_text(json.dumps(request))
        (folder / "request.new").replace(folder / "request.json")
        run_worker(folder)

    def handle(self, folder: Path) -> Handle:
        return Handle(backend=self.name, job_name=folder.name, data={"folder": str(folder)})

    def find(self, job_name: str) -> Handle | None:
        return call(lambda: self.handle(root() / "jobs" / job_name) if known(root() / "jobs" / job_name) else None)

    def known(self) -> list[Handle]:
        return [self.handle(path) for path in (root() / "jobs").glob("*") if known(path)]

    def status(self, handle: Handle) -> Status:
        return call(lambda: self.read_status(folder_of(handle)))

    def read_status(self, folder: Path) -> Status:
        alive = running(folder)
        end = json.loads((folder / "exit").read_text()) if not alive and (folder / "exit").exists() else None
        if alive:
            begun = (folder / "log").exists() and (folder / "log").stat().st_size > 0
            state = State.STOPPING if (folder / "cancelled").exists() else State.RUNNING if begun else State.STARTING
            return Status(state=state, native_state=state.lower())
        seconds = end["seconds"] if end else 1.0
        return self.ended(folder, end["code"] if end else None).model_copy(update={"billable_seconds": seconds})

    def ended(self, folder: Path, code: int | None) -> Status:
        if code == 0:
            return Status(state=State.SUCCEEDED, native_state="done")
        if (folder / "cancelled").exists():
            return Status(state=State.CANCELLED, reason=Reason.USER, native_state="stopped")
        if (folder / "interrupted").exists():
            return Status(state=State.FAILED, reason=Reason.SPOT_INTERRUPTED, native_state="reclaimed")
        message = (folder / "message").read_text() if (folder / "message").exists() else f"ended with {code}"
        reason = {2: Reason.BAD_DATA, 124: Reason.TIMED_OUT}.get(code or -1, Reason.UNKNOWN)
        return Status(state=State.FAILED, reason=reason, native_state="broken", message=message)

    def logs(self, handle: Handle, after: str | None) -> Iterator[LogLine]:
        yield from self.read_log(call(lambda: folder_of(handle)), int(after or 0))

    def read_log(self, folder: Path, position: int) -> Iterator[LogLine]:
        text = (folder / "log").read_bytes()[position:] if (folder / "log").exists() else b""
        for raw in text.splitlines(keepends=True):
            if not raw.endswith(b"\n"):
                return
            position += len(raw)
            yield LogLine(text=raw.decode().rstrip("\n"), cursor=str(position))

    def cancel(self, handle: Handle) -> None:
        folder = folder_of(handle)
        if running(folder):
            (folder / "cancelled").touch()
            signal_worker(folder, signal.SIGTERM)

    def resume(self, handle: Handle) -> Handle:
        folder = folder_of(handle)
        if not self.read_status(folder).state.ended:
            return handle
        for name in ("cancelled", "interrupted", "exit", "message"):
            (folder / name).unlink(missing_ok=True)
        run_worker(folder)
        return handle

    def fetch(self, handle: Handle, into: Path) -> None:
        output = folder_of(handle) / "output"
        for source in sorted(path for path in output.rglob("*") if path.is_file()):
            target = into / source.relative_to(output)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def remove(self, handle: Handle) -> None:
        shutil.rmtree(folder_of(handle) / "data", ignore_errors=True)

    def offers(self, region: str | None):
        for machine, price in (("small", 0.5), ("large", None)):
            yield Offer(backend=self.name, machine=machine, region=region, gpu=None, gpu_count=0, usd_per_hour=price,
                        kind="snapshot", as_of="2026-01-01", source="price list")  # fmt: skip


def root() -> Path:
    return Path(os.environ["REFERENCE_PLACE"])


def note(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(line)


def known(folder: Path) -> bool:
    return (folder / "request.json").exists()


def folder_of(handle: Handle) -> Path:
    folder = Path(str(handle.data.get("folder", root() / "jobs" / handle.job_name)))
    if not known(folder):
        raise JobNotFound(f"no job {handle.job_name!r}", hint="ftlaunch jobs lists those that were started")
    return folder


def running(folder: Path) -> bool:
    """Whether a worker lives: it holds its lock until it ends, however it ends."""
    with (folder / "worker.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
    return False


def run_worker(folder: Path) -> None:
    note(folder / "starts", "1\n")
    (folder / "pid").unlink(missing_ok=True)
    with (folder / "worker.lock").open("a") as lock, (folder / "log").open("ab") as log:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # one who asks whether the job lives holds it for an instant
                time.sleep(0.002)
        command = [sys.executable, "-I", "-S", str(WORKER), str(folder)]
        subprocess.Popen(command, stdout=log, stderr=log, pass_fds=[lock.fileno()], start_new_session=True)


def signal_worker(folder: Path, number: int) -> None:
    while running(folder) and not ((folder / "pid").exists() and (folder / "pid").read_text()):
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(int((folder / "pid").read_text()), number)


def call(ask: Callable[[], Any], tries: int = 3) -> Any:
    """Ask the place as an SDK would: what is throttled or dropped is asked again."""
    for left in reversed(range(tries)):
        try:
            return vendor_call(ask)
        except VendorError as error:
            if str(error) == "ExpiredToken":
                raise BackendError("expired", hint="log in again", reason=Reason.CREDENTIALS) from error
            if not left:
                raise BackendError("the place does not answer", hint="try again later") from error
    raise AssertionError


def vendor_call(ask: Callable[[], Any]) -> Any:
    """In trouble every other call fails."""
    trouble = TROUBLE.get()
    if trouble == "expired":
        raise VendorError("ExpiredToken")
    if trouble in ("throttle", "drop"):
        CALLS.get().append(1)
        if len(CALLS.get()) % 2:
            raise VendorError(trouble)
    return ask()


@contextlib.contextmanager
def trouble(kind: str) -> Iterator[None]:
    calls, token = CALLS.set([]), TROUBLE.set(kind)
    try:
        yield
    finally:
        TROUBLE.reset(token)
        CALLS.reset(calls)


class ReferenceHarness(Harness):
    backend: ClassVar[type[Backend]] = Reference
    remote: ClassVar[bool] = True
    end_seconds: ClassVar[float] = 60.0
    answer_seconds: ClassVar[float] = 0.7
    poll_seconds: ClassVar[float] = 0.04
    limit_seconds: ClassVar[int] = 1
    grace_seconds: ClassVar[float] = 8.0
    long_steps: ClassVar[int] = 700
    cut_step: ClassVar[int] = 13

    def small_job(self) -> SmallJob:
        train = self.folder / "train.jsonl"
        rows = [{"text": f"row {self.session} {number}", "label": "ab"[number % 2]} for number in range(10)]
        train.write_text("".join(json.dumps(row) + "\n" for row in rows))
        model = self.folder / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        return small_job(train, model, image="image:tag", options={"account": "payer"})

    def census(self, job_name: str) -> Census:
        folder = root() / "jobs" / job_name
        starts = folder / "starts"
        started = len(starts.read_text().splitlines()) if starts.exists() else 0
        return Census(started=started, running=int(folder.exists() and running(folder)))

    def bytes_sent(self) -> int:
        ledgers = (root() / "sent").glob(f"*{self.session}*")
        return sum(int(line) for path in ledgers for line in path.read_text().splitlines())

    def levers(self) -> Levers:
        return Levers(
            kill_machine=lambda handle: signal_worker(folder_of(handle), signal.SIGKILL),
            interrupt_spot=self.interrupt,
            throttle=lambda: trouble("throttle"),
            drop_connection=lambda: trouble("drop"),
            expire_credentials=lambda: trouble("expired"),
            make_fail={Reason.NO_CAPACITY: lambda: trouble("full")},
        )

    def interrupt(self, handle: Handle) -> None:
        (folder_of(handle) / "interrupted").touch()
        signal_worker(folder_of(handle), signal.SIGTERM)


class HereHarness(ReferenceHarness):
    """The same, said to be on this machine."""

    remote: ClassVar[bool] = False
