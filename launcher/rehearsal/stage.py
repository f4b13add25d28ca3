"""The container on a local engine: its volumes and files laid, started, interrupted, started again, and all removed.

Everything goes over the engine's API, so that a remote engine works the same. What a killed rehearsal left is removed
by the next one on this machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from backends.docker_engine import Engine, errors
from backends.docker_request import SECRETS
from backends.interface import BackendError, Json
from launcher.rehearsal.layout import SPEC_FILE, Layout, Volume
from training_image.contracts import DATA
from training_image.secrets import VARIABLE

LABEL = "ftlaunch.rehearsal"
"""Its value is the machine and the process that own the container or volume."""

Line = Callable[[str], None]


@dataclass
class Start:
    """One start of the container, as the service sees it."""

    exit_code: int = -1
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)
    interrupted: bool = False
    killed: bool = False
    """Whether it did not end by itself."""
    grace: float | None = None
    """Seconds from SIGTERM to its end."""
    out_of_memory: bool = False


@dataclass(frozen=True)
class Stage:
    """The engine with what all starts of one rehearsal share."""

    engine: Engine
    image: str
    layout: Layout
    inputs: Mapping[str, Path]
    """The job's files by name in the data folder."""
    spec: str
    """The text of ``spec.json``."""
    secrets: Mapping[str, str]
    network: bool
    token: str = field(default_factory=lambda: f"ftlaunch-rehearsal-{secrets.token_hex(4)}")

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Remove everything at the end, whatever it is."""
        _sweep(self.engine)
        try:
            yield
        finally:
            _remove(self.engine, lambda name: name.startswith(self.token))

    def start(self, number: int, line: Line, interrupt: Callable[[str], bool] | None) -> Start:
        """Run the container to its end. ``interrupt`` is asked after each line whether its machine goes away now."""
        self._lay(number)
        name = f"{self.token}-{number}"
        config = self._config() | {"HostConfig": self._host(number, carrier=False)}
        self._create(name, config)
        files = self.layout.files | {f"{SECRETS}/{name}": value for name, value in self.secrets.items()}
        self.engine.put(name, "/", _archive({path.lstrip("/"): text for path, text in files.items()}))
        with errors():
            self.engine.api.start(name)
        return self._followed(name, line, interrupt)

    @contextlib.contextmanager
    def read(self, number: int, path: str) -> Iterator[tarfile.TarFile | None]:
        """What the ended container has at a path, as an archive; None if there is nothing."""
        with self.engine.get(f"{self.token}-{number}", path) as archive:
            yield archive

    def _followed(self, name: str, line: Line, interrupt: Callable[[str], bool] | None) -> Start:
        began, done = time.monotonic(), Start()
        clock = _Interruption(self.engine, name, self.layout.contract.grace_seconds)
        notice = self.layout.contract.interruption_notice
        for text in _lines(self.engine, name):
            done.lines.append(text)
            line(text)
            if interrupt is not None and not done.interrupted and interrupt(text):
                done.interrupted = True
                clock.start(notice)
        with errors():
            done.exit_code = int(self.engine.api.wait(name)["StatusCode"])
        done.seconds = time.monotonic() - began
        done.killed, done.grace = clock.stop()
        state = (self.engine.inspect(name) or {}).get("State", {})
        done.out_of_memory = bool(state.get("OOMKilled"))
        return done

    def _lay(self, number: int) -> None:
        """Make the volumes, by a container that is never started, for inputs cannot be written by the real one."""
        carrier = f"{self.token}-{number}-carrier"
        for each in self.layout.volumes:
            self.engine.make_volume(self._volume(each, number), self._labels())
        if self.layout.contract.closed:
            self.engine.make_volume(f"{self.token}-{number}-closed", self._labels())
        self._create(carrier, {"Image": self.image, "Cmd": ["-"], "HostConfig": self._host(number, carrier=True)})
        for index, each in enumerate(self.layout.volumes):
            if number == 1 or not each.kept:
                self.engine.put(carrier, f"/{index}", self._content(each))
        if self.layout.contract.closed:
            points = {_below(each.path, self.layout.contract.closed): None for each in self.layout.volumes}
            self.engine.put(carrier, "/closed", _archive(points))
        with errors():
            self.engine.api.remove_container(carrier, force=True)

    def _content(self, volume: Volume) -> list[tuple[tarfile.TarInfo, Path | bytes | None]]:
        files: dict[str, str | Path | None] = {_below(path, volume.path): None for path in volume.folders}
        for folder in self.layout.paths(DATA):
            if folder in volume.folders:
                files |= {f"{_below(folder, volume.path)}/{name}": path for name, path in self.inputs.items()}
        if str(PurePosixPath(self.layout.spec).parent) in volume.folders:
            files[f"{_below(str(PurePosixPath(self.layout.spec).parent), volume.path)}/{SPEC_FILE}"] = self.spec
        return _archive(files)

    def _config(self) -> Json:
        # as files, which the training deletes: a container's description is anyone's to read, and may be left behind
        variables = self.layout.environment | {f"{VARIABLE}{name}": f"file:{SECRETS}/{name}" for name in self.secrets}
        config: Json = {
            "Image": self.image,
            "Cmd": list(self.layout.arguments),
            "Env": [f"{name}={value}" for name, value in variables.items()],
            "User": self.layout.contract.user,
        }
        if self.layout.entrypoint is not None:
            config["Entrypoint"] = list(self.layout.entrypoint)
        return config

    def _host(self, number: int, *, carrier: bool) -> Json:
        mounts = [
            {
                "Type": "volume",
                "Source": self._volume(each, number),
                "Target": f"/{index}" if carrier else each.path,
                "ReadOnly": each.read_only and not carrier,
            }
            for index, each in enumerate(self.layout.volumes)
        ]
        if closed := self.layout.contract.closed:
            source = f"{self.token}-{number}-closed"
            target = "/closed" if carrier else closed
            mounts.append({"Type": "volume", "Source": source, "Target": target, "ReadOnly": not carrier})
        return {"Mounts": mounts, "NetworkMode": "bridge" if self.network else "none"}

    def _volume(self, volume: Volume, number: int) -> str:
        index = self.layout.volumes.index(volume)
        return f"{self.token}-kept-{index}" if volume.kept else f"{self.token}-{number}-{index}"

    def _create(self, name: str, config: Json) -> None:
        if not self.engine.create(name, config | {"Labels": self._labels()}):
            raise BackendError(f"there is a container {name} already", hint="run the rehearsal again")

    def _labels(self) -> dict[str, str]:
        return {LABEL: f"{socket.gethostname()}:{os.getpid()}"}


class _Interruption:
    """Takes the machine away: SIGTERM and the grace where the service gives notice, else SIGKILL at once."""

    def __init__(self, engine: Engine, name: str, grace: float) -> None:
        self._engine, self._name, self._grace = engine, name, grace
        self._asked: float | None = None
        self._killed = False
        self._timer: threading.Timer | None = None

    def start(self, notice: bool) -> None:
        if not notice:
            return self._kill()
        self._asked = time.monotonic()
        self._signal("SIGTERM")
        self._timer = threading.Timer(self._grace, self._kill)
        self._timer.daemon = True
        self._timer.start()
        return None

    def stop(self) -> tuple[bool, float | None]:
        """Whether it was killed, and the seconds from SIGTERM to now."""
        if self._timer is not None:
            self._timer.cancel()
        return self._killed, None if self._asked is None else time.monotonic() - self._asked

    def _kill(self) -> None:
        self._killed = True
        self._signal("SIGKILL")

    def _signal(self, signal: str) -> None:
        with contextlib.suppress(BackendError):  # it ended in this moment
            self._send(signal)

    def _send(self, signal: str) -> None:
        with errors():
            self._engine.api.kill(self._name, signal)


def _lines(engine: Engine, name: str) -> Iterator[str]:
    rest = b""
    with errors():
        for piece in engine.api.logs(name, stdout=True, stderr=True, stream=True, follow=True):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
    if rest:
        yield rest.decode(errors="replace")


def _archive(files: Mapping[str, str | Path | None]) -> list[tuple[tarfile.TarInfo, Path | bytes | None]]:
    """Folders (None), texts and files for `Engine.put`; folders above them come first."""
    entries: dict[str, tuple[tarfile.TarInfo, Path | bytes | None]] = {}
    for name, content in files.items():
        path = PurePosixPath(name)
        for folder in [*reversed(path.parents), *([path] if content is None else [])]:
            info = tarfile.TarInfo(str(folder))
            info.type, info.mode = tarfile.DIRTYPE, 0o777
            entries.setdefault(str(folder), (info, None))
        if content is not None:
            info = tarfile.TarInfo(str(path))
            info.mode = 0o644
            entries[str(path)] = (info, content.encode() if isinstance(content, str) else content)
    return [entry for name, entry in entries.items() if name != "."]


def _below(path: str, folder: str) -> str:
    return str(PurePosixPath(path).relative_to(folder))


def _sweep(engine: Engine) -> None:
    """Remove what rehearsals left on this machine whose process is gone."""
    own = f"{socket.gethostname()}:"

    def left(labels: Mapping[str, str]) -> bool:
        owner = labels.get(LABEL, "")
        return owner.startswith(own) and not _runs(int(owner.removeprefix(own)))

    _remove(engine, lambda name: True, left)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _remove(
    engine: Engine, named: Callable[[str], bool], labelled: Callable[[Mapping[str, str]], bool] = lambda labels: True
) -> None:
    wanted: dict[str, Any] = {"label": LABEL}
    with errors():
        for each in engine.api.containers(all=True, filters=wanted):
            if any(named(name.lstrip("/")) for name in each["Names"]) and labelled(each["Labels"]):
                engine.api.remove_container(each["Id"], force=True)
        for each in engine.api.volumes(filters=wanted)["Volumes"] or ():
            if named(each["Name"]) and labelled(each["Labels"] or {}):
                engine.remove_volume(each["Name"])
