"""A small real place for the launcher's tests: the local one, with a quick script in the place of the training.

It is installed as a plug-in by an entry point, as anyone's would be. Jobs are real processes under the real
supervisor; `backends.scripted` makes the script, or the place itself, behave as a test needs it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr

from backends.interface import (
    Backend,
    BackendError,
    BackendOptions,
    Capabilities,
    Cursor,
    Finding,
    Handle,
    LogLine,
    Offer,
    Plan,
    Reason,
    Status,
    Submission,
    Unresolved,
)
from backends.local import Local

SCRIPT = Path(__file__).with_name("quick_training.py")


class ScriptedOptions(BackendOptions):
    """``backends.scripted``."""

    do: str = Field("well", description="What the script does; see quick_training.py.")
    steps: int = Field(3, description="Steps of 0.05 seconds.")
    role: str | None = Field(None, description="An account fact, unresolved if absent.")
    needs_role: bool = Field(False, description="Whether `role` is needed.")
    trouble: str = Field("", description="refuse, warn, credentials, lost-answer, no-package or drops.")
    grace_seconds: float = Field(10, description="As for local.")


class Scripted(Local):
    """Local, with quick_training.py."""

    name: ClassVar[str] = "scripted"
    options: ClassVar[type[BackendOptions]] = ScriptedOptions
    summary: ClassVar[str] = "for tests"
    extra: ClassVar[str] = "scripted-extra"

    def plan(self, submission: Submission) -> Plan:
        options = ScriptedOptions.model_validate(submission.options)
        plan = super().plan(submission.model_copy(update={"options": {"grace_seconds": options.grace_seconds}}))
        python, _, _, _, *places = plan.request["argv"]
        argv = [python, str(SCRIPT), *places, "--do", options.do, "--steps", str(options.steps)]
        role = options.role or "<scripted.role>"
        request = {**plan.request, "argv": argv, "role": role, "trouble": options.trouble}
        missing = options.needs_role and options.role is None
        hint = "set backends.scripted.role"
        unresolved = (Unresolved(path="backends.scripted.role", hint=hint),) if missing else ()
        return plan.model_copy(update={"backend": self.name, "request": request, "unresolved": unresolved})

    def resolve(self, plan: Plan) -> Plan:
        role = os.environ.get("SCRIPTED_ROLE")
        if role is None:
            return plan
        return plan.model_copy(update={"request": plan.request | {"role": role}, "unresolved": ()})

    def preflight(self, plan: Plan) -> list[Finding]:
        trouble = plan.request["trouble"]
        if "SCRIPTED_PAUSE" in os.environ:
            print("the place is being looked at", file=sys.stderr, flush=True)
            time.sleep(20)
        if trouble == "refuse":
            return [Finding(level="error", code="quota", message="no quota for that", hint="ask for some")]
        if trouble == "warn":
            return [Finding(level="warning", code="slow", message="this will be slow", hint="take a GPU")]
        return []

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        if "SCRIPTED_UPLOAD" in os.environ:
            print("a long upload", file=sys.stderr, flush=True)
            time.sleep(float(os.environ["SCRIPTED_UPLOAD"]))
        super().stage(plan, files)

    def resume(self, handle: Handle) -> Handle:
        handle = super().resume(handle)
        if os.environ.get("SCRIPTED_DIE") == "after-resume":
            os.kill(os.getpid(), 9)
        if os.environ.get("SCRIPTED_LOSES") == "resume":
            raise BackendError("the connection broke", reason=Reason.UNKNOWN)
        return handle

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        trouble = plan.request["trouble"]
        if trouble == "no-package":
            raise ModuleNotFoundError("No module named 'scripted_sdk'", name="scripted_sdk")
        if trouble == "credentials":
            raise BackendError("your token has expired", hint="log in again", reason=Reason.CREDENTIALS)
        if os.environ.get("SCRIPTED_DIE") == "before-submit":
            os.kill(os.getpid(), 9)
        handle = super().submit(plan, secrets)
        if os.environ.get("SCRIPTED_DIE") == "after-submit":
            os.kill(os.getpid(), 9)
        if trouble == "lost-answer":
            raise BackendError("the connection broke", reason=Reason.UNKNOWN)
        return handle

    def status(self, handle: Handle) -> Status:
        if "SCRIPTED_EXPIRED" in os.environ:
            raise BackendError("your token has expired", hint="log in again", reason=Reason.CREDENTIALS)
        self._drop(handle)
        return super().status(handle)

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        for line in super().logs(handle, after):
            yield line
            self._drop(handle)

    def _drop(self, handle: Handle) -> None:
        """Every third call breaks off, where the job says so."""
        if not self._does(handle, "drops"):
            return
        Scripted.calls += 1
        if Scripted.calls % 3 == 0:
            raise BackendError("connection reset by peer")

    def remove(self, handle: Handle) -> None:
        if self._does(handle, "held"):
            raise BackendError("it does not let go")
        super().remove(handle)

    def _does(self, handle: Handle, what: str) -> bool:
        return f'"--do", "{what}"' in (Path(handle.data["folder"]) / "start.json").read_text()

    calls: ClassVar[int] = 0


class Billed(Scripted):
    """The same, in a place that sends bills."""

    name: ClassVar[str] = "billed"
    capabilities: ClassVar[Capabilities] = Scripted.capabilities.model_copy(update={"billable_seconds": True})

    def plan(self, submission: Submission) -> Plan:
        return super().plan(submission).model_copy(update={"machine": "rented", "region": "here"})

    def offers(self, region: str | None) -> Iterator[Offer]:
        usd = os.environ.get("BILLED_USD", "36")
        yield Offer(
            backend=self.name, machine="rented", region="here", gpu="A10G", gpu_count=1,
            usd_per_hour=float(usd) if usd else None, kind="snapshot", as_of="2026-11-01", source="a test",
        )  # fmt: skip

    def status(self, handle: Handle) -> Status:
        told = super().status(handle)
        return told.model_copy(update={"billable_seconds": 90.0 if told.state.ended else 30.0})


assert issubclass(Scripted, Backend)
