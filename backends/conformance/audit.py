"""What a call reaches for: connections, files, child processes. Seen by the interpreter's own audit events, so that an
attempt counts even where its error is swallowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

CREDENTIAL_FILES = (
    "/.aws/",
    "/.azure/",
    "/.boto",
    "/.config/gcloud/",
    "/.docker/config.json",
    "/.kaggle/",
    "/.netrc",
    "/huggingface/token",
)


@dataclass(slots=True)
class Reached:
    """What was reached for while recording."""

    connections: list[str] = field(default_factory=list)
    """Addresses of TCP and unix sockets, and names that were looked up."""
    processes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    @property
    def network(self) -> list[str]:
        """The connections that leave the machine's file system (unix sockets do not)."""
        return [address for address in self.connections if not address.startswith("unix:")]

    @property
    def credential_files(self) -> list[str]:
        """The opened files in which SDKs keep credentials."""
        return [path for path in self.files if any(part in path for part in CREDENTIAL_FILES)]


_recorder: ContextVar[Reached | None] = ContextVar("recorder", default=None)
_process_wide: list[Reached] = []
_installed: list[bool] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    reached = _process_wide[-1] if _process_wide else _recorder.get()
    if reached is None:
        return
    if event == "socket.connect":
        address = arguments[1]
        reached.connections.append(str(address) if isinstance(address, tuple) else f"unix:{address!r}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        reached.connections.append(str(arguments[0]))
    elif event in ("subprocess.Popen", "os.system", "os.posix_spawn"):
        reached.processes.append(str(arguments[0]))
    elif event == "open":
        reached.files.append(str(arguments[0]))


def record_process() -> Reached:
    """Record what this process reaches for from now on, in any thread."""
    _install()
    _process_wide.append(Reached())
    return _process_wide[-1]


def _install() -> None:
    if not _installed:  # an audit hook cannot be taken out again; with nobody recording it does nothing
        _installed.append(True)
        sys.addaudithook(_hook)


@contextmanager
def recording() -> Iterator[Reached]:
    """Record what this thread reaches for."""
    _install()
    reached = Reached()
    token = _recorder.set(reached)
    try:
        yield reached
    finally:
        _recorder.reset(token)
