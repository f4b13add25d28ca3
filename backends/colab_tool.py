"""Google's own command line tool for Colab, as a child process: calls, repeats, and what its complaints mean.

Tried against version 0.7.5. Its sessions are kept in a file of ours (``--config``), so that ours and the user's own do
not meet. The tool logs what it executes on this machine, so no secret is ever executed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backends.interface import BackendError, Reason

PACKAGE = "google-colab-cli"
INSTALL = f"pipx install --python python3.12 {PACKAGE} (or uv tool install {PACKAGE}); or set backends.colab.command"
ANSWER_SECONDS = 60.0
"""Longest wait for a short piece of code on the machine."""
ONCE_SECONDS = 20.0
"""Longest wait for what is asked for once and may stay unknown."""
NEW_SECONDS = 900.0
"""Longest wait for a machine; the tool itself tries again where the service is busy."""
PAUSES = (0.5, 1.5, 4.0)
"""Seconds before a call that broke off is repeated."""
READ_PAUSES = (0.05, 0.2, 0.5)
"""Seconds before the file of sessions is read again that the tool is about to write."""
MARK = "ftlaunch:"
"""What our code on the machine begins its one line of answer with."""

_LOST = re.compile(r"^\[colab\] Session '[^']*' (not found\.|appears to be lost)", re.MULTILINE)
_CREDENTIALS = (
    "Enter the authorization code",
    "EOF when reading a line",
    "default credentials",
    "invalid_grant",
    "Unauthorized",
    "Failed to refresh token",
)
_TRANSIENT = (
    "Too Many Requests",
    "Service Unavailable",
    "Bad Gateway",
    "Gateway Time-out",
    "Connection aborted",
    "Connection broken",
    "Connection refused",
    "Connection was lost",
    "ConnectionError",
    "IncompleteRead",
    "RemoteDisconnected",
    "Max retries exceeded",
    "timed out",
    "Timeout",
)
_OF_OUR_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would lead the tool's Python, another one, to the packages of ours."""
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_LISTED = re.compile(r"^\[(?P<name>[^\]]*)\] (?P<endpoint>\S+) \| Hardware: (?P<hardware>\S+)", re.MULTILINE)
_USAGE = re.compile(r"balance: ([\d.]+).*?rate: ([\d.]+)/hr.*?assignments: (\d+)", re.DOTALL | re.IGNORECASE)


class SessionLost(BackendError):
    """The machine is not there any more."""


class Assigned(NamedTuple):
    """A machine of the account, as Colab lists it."""

    name: str
    """Of our session, or ``?`` for one that was not started through our file of sessions."""
    endpoint: str
    hardware: str
    """T4, L4, G4, A100, H100 or CPU."""


class Usage(NamedTuple):
    """The account's compute units."""

    balance: float
    rate: float
    """Units an hour, of all machines together."""
    machines: int


class Tool:
    """The installed tool, with one file of sessions."""

    def __init__(self, command: str, auth: str, sessions: Path) -> None:
        self.command, self.auth, self.sessions = command, auth, sessions

    def new(self, session: str, gpu: str, much_memory: bool, locked: int) -> None:
        """Take a machine. The child holds the descriptor ``locked`` for as long as it is at it, and is left alone by
        the signals of our terminal: what it takes it also writes down, whatever becomes of us."""
        arguments = ["new", "-s", session, "--gpu", gpu, *(["--high-mem"] if much_memory else [])]
        self._once(arguments, NEW_SECONDS, pass_fds=(locked,), start_new_session=True)

    def stop(self, session: str) -> None:
        """Give the machine back; one that is not there is no error."""
        try:
            self._call(["stop", "-s", session], ANSWER_SECONDS)
        except SessionLost:
            return

    def assigned(self) -> list[Assigned]:
        """All machines of the account. Raises BackendError.

        While its file of sessions is empty, the tool takes a refused login for an account without machines, and ends
        with 0: only its complaints tell.
        """
        told, complaints = self._answered(["sessions"], ANSWER_SECONDS, None)
        if _has(complaints, _CREDENTIALS):
            raise self._complaint("sessions", complaints)
        return [Assigned(**match.groupdict()) for match in _LISTED.finditer(told)]

    def endpoint(self, session: str) -> str | None:
        """The machine of a session, by the tool's own note of it."""
        found: dict[str, Any] = self._noted().get(session, {})
        return found.get("endpoint")

    def usage(self, *, once: bool = False) -> Usage:
        """The account's units; ``once``: asked for a short time and not again. Raises BackendError, for an answer that
        is not known here as well."""
        told = self._once(["usage"], ONCE_SECONDS)[0] if once else self._call(["usage"], ANSWER_SECONDS)
        if (match := _USAGE.search(told)) is None:
            raise BackendError(f"`colab usage` said something that is not known here: {told[:80]!r}", hint=INSTALL)
        return Usage(float(match[1]), float(match[2]), int(match[3]))

    def upload(self, session: str, source: Path, target: str) -> None:
        """Send one file whole."""
        self._call(["upload", "-s", session, str(source), target], NEW_SECONDS)

    def download(self, session: str, source: str, target: Path) -> None:
        """Bring one file whole."""
        self._call(["download", "-s", session, source, str(target)], NEW_SECONDS)

    def ask(self, session: str, code: str, seconds: float = ANSWER_SECONDS) -> Any:
        """Run ``code`` in the machine's kernel; gives the value that its last line leaves in ``answer``.

        The tool ends with 0 whatever the code does, so an answer without our mark is an error.
        """
        whole = f"{code}\nimport json\nprint('\\n{MARK}' + json.dumps(answer), flush=True)\n"
        arguments = ["exec", "-s", session, "--timeout", str(seconds)]
        told, complaints = self._answered(arguments, seconds + ANSWER_SECONDS, whole)
        lines = [line for line in told.splitlines() if line.startswith(MARK)]
        if lines:
            return json.loads(lines[-1].removeprefix(MARK))
        raise BackendError(
            f"the machine gave no answer: {_last_line(complaints) or _last_line(told)}",
            hint=f"see it with `{self.command} --config {self.sessions} sessions`",
        )

    def restore(self, session: str, endpoint: str) -> None:
        """Write down the session of a machine that the tool has lost sight of; it fills in the rest itself."""
        self._rewrite(lambda known: known | {session: {"name": session, "endpoint": endpoint, "token": "", "url": ""}})

    def forget(self, session: str) -> None:
        """Take a session out of our file; its machine is left alone."""
        self._rewrite(lambda known: {name: each for name, each in known.items() if name != session})

    def _rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        known = change(self._noted())
        new = self.sessions.with_name(f"{self.sessions.name}.new")
        new.write_text(json.dumps(known))
        new.chmod(0o600)
        new.replace(self.sessions)

    def _noted(self) -> dict[str, Any]:
        """What is in the file of sessions. The tool empties it before it writes, so half a file is read again; one that
        stays so holds nothing, for the tool as well."""
        for pause in (*READ_PAUSES, 0.0):
            with contextlib.suppress(ValueError):
                noted: dict[str, Any] = json.loads(self.sessions.read_text() if self.sessions.exists() else "{}")
                return noted
            time.sleep(pause)
        return {}

    def _call(self, arguments: Sequence[str], seconds: float) -> str:
        """Call, and again where the way to Colab broke off; for what may be done twice."""
        return self._answered(arguments, seconds, None)[0]

    def _answered(self, arguments: Sequence[str], seconds: float, code: str | None) -> tuple[str, str]:
        for pause in PAUSES:
            try:
                return self._once(arguments, seconds, code)
            except SessionLost:
                raise
            except BackendError as error:
                if not _has(error.message, _TRANSIENT):
                    raise
                time.sleep(pause)
        return self._once(arguments, seconds, code)

    def _once(self, arguments: Sequence[str], seconds: float, code: str | None = None, **how: Any) -> tuple[str, str]:
        """Call once; gives standard output and standard error. Raises BackendError, SessionLost."""
        command = [self._path(), f"--auth={self.auth}", "--config", str(self.sessions), *arguments]
        self.sessions.parent.mkdir(parents=True, exist_ok=True)
        feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if code is None else {"input": code}
        environment = {name: value for name, value in os.environ.items() if name not in _OF_OUR_PYTHON}
        environment |= {"_TYPER_STANDARD_TRACEBACK": "1", "NO_COLOR": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, env=environment, check=False, **feed, **how
            )
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"`colab {arguments[0]}` timed out after {seconds:.0f} s", hint="try again") from error
        if done.returncode == 0 and not _LOST.search(done.stdout):
            return done.stdout, done.stderr
        raise self._complaint(arguments[0], f"{done.stdout}\n{done.stderr}")

    def _complaint(self, verb: str, told: str) -> BackendError:
        """What the tool's refusal means."""
        if _has(told, _CREDENTIALS):
            login = f"run `{self.command} --auth={self.auth} sessions` in a terminal and sign in"
            if self.auth == "adc":
                login = (
                    "gcloud auth application-default login --scopes=openid,"
                    "https://www.googleapis.com/auth/cloud-platform,https://www.googleapis.com/auth/userinfo.email,"
                    "https://www.googleapis.com/auth/colaboratory"
                )
            return BackendError("Colab does not take the credentials", hint=login, reason=Reason.CREDENTIALS)
        if "Allocation refused" in told:
            message = "Colab gives no machine now: too many are running, or a limit of use or capacity is reached"
            hint = "wait and try again, stop other sessions, or ask for another resources.gpu"
            return BackendError(message, hint=hint, reason=Reason.NO_CAPACITY)
        if "Backend rejected accelerator" in told:
            message = "Colab refuses this GPU to the account: it has no right to it, or no compute units left"
            hint = "set resources.gpu to T4, or buy compute units (colab pay)"
            return BackendError(message, hint=hint, reason=Reason.QUOTA)
        if "Service Unavailable" in told and verb == "new":
            hint = "wait and try again, or ask for another resources.gpu"
            return BackendError("Colab has no such machine free: Service Unavailable", hint, Reason.NO_CAPACITY)
        if _LOST.search(told):
            return SessionLost("the machine is not there any more", hint="ftlaunch run --resume takes another one")
        return BackendError(f"`colab {verb}` failed: {_last_line(told)}", hint=f"is {PACKAGE} up to date? {INSTALL}")

    def _path(self) -> str:
        found = shutil.which(os.path.expanduser(self.command))
        if found is None:
            raise BackendError(f"there is no Colab command line tool {self.command!r}", hint=INSTALL)
        return found


def _has(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
