"""What `backends.colab` looks at before a job is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backends.colab_request import FREE
from backends.colab_tool import Tool, Usage
from backends.interface import BackendError, Finding, Plan, Reason


def findings(plan: Plan, sessions: Path) -> list[Finding]:
    """Look for the tool, its login and the units of the account; ``sessions``: our file of the tool's sessions."""
    request = plan.request
    try:
        usage = Tool(request["tool"]["command"], request["tool"]["auth"], sessions).usage()
    except BackendError as error:
        code = "credentials" if error.reason is Reason.CREDENTIALS else "tool"
        found = [Finding(level="error", code=code, message=error.message, hint=error.hint)]
    else:
        found = list(_unit_findings(usage, request["machine"]["gpu"], plan.machine == FREE))
    if request["machines"] > 1 or request["spot"]:
        message = "Colab gives one machine a job, and none at a lower rate"
        hint = "leave resources.machines and resources.spot out, or take another --backend"
        found.append(Finding(level="error", code="machines", message=message, hint=hint))
    return found


def _unit_findings(usage: Usage, gpu: str, free: bool) -> Iterator[Finding]:
    if free and usage.balance > 0:
        message = f"the account has {usage.balance:.2f} compute units, and Colab takes them for a T4 as well"
        hint = "set resources.gpu: T4 instead of resources.machine, and a budget if you like"
        yield Finding(level="error", code="units", message=message, hint=hint)
    if usage.balance <= 0:
        message = "the account has no compute units: only a free T4 may be given, without a promise"
        hint = "" if gpu == "T4" else "set resources.gpu to T4, or buy compute units (colab pay)"
        yield Finding(level="warning" if hint else "note", code="units", message=message, hint=hint)
    if usage.machines:
        told = f"the account has {usage.machines} machine{'s' if usage.machines > 1 else ''} already"
        message = f"{told}, at {usage.rate:.2f} units an hour"
        yield Finding(level="note", code="sessions", message=message)
