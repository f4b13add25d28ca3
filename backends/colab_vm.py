"""What runs on the Colab machine beside the training: laid there as a file, with the standard library alone.

The launcher calls it through the machine's kernel (`backends.colab_session`), and a notebook's cells import it. All of
the job lies in one folder, as that of a local job does (`backends.local`), with the same supervisor in it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path("/content/ftlaunch")
PARTS = Path("/content/ftlaunch-parts")
"""Where an archive lies in parts, on its way in or out."""
PART_BYTES = 48 << 20
"""Of one part: the machine's file service takes and gives a file whole, as JSON."""
LOG_BYTES = 1 << 18
"""Most of the log in one answer: a kernel drops output that comes too fast."""


def unpack(sha256: str) -> None:
    """Join the parts that were sent and lay the job's files; twice does no harm. Raises ValueError for damaged ones."""
    parts = sorted(PARTS.glob("in-*"))
    if not parts:
        return
    whole = PARTS / "whole.tar"
    digest = hashlib.sha256()
    with whole.open("wb") as archive:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            archive.write(content)
    if digest.hexdigest() != sha256:
        raise ValueError("what arrived on the machine is not what was sent")
    with tarfile.open(whole) as members:
        members.extraction_filter = getattr(tarfile, "data_filter", None)  # Python has it since 3.11.4
        members.extractall(FOLDER)  # noqa: S202  # the launcher's own archive, by its digest
    for path in (whole, *parts):
        path.unlink()


def start(secrets: str | None) -> None:
    """Start the supervisor, unless it was; the file of secrets is deleted before, once it is read."""
    values: dict[str, str] = {}
    if secrets is not None and Path(secrets).exists():
        values = json.loads(Path(secrets).read_text())
        Path(secrets).unlink()
    if (FOLDER / "state.json").exists():
        return
    command = [sys.executable, "-I", str(FOLDER / "local_supervisor.py"), str(FOLDER)]
    with (FOLDER / "supervisor.log").open("ab") as log:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | values, check=True)


def look(after: int, known: dict[str, int] | None) -> dict[str, Any]:
    """How the job stands: the supervisor's record, who lives, the log from that byte on, the checkpoints by time.

    What is to be brought is packed: of an ended job whose log is told the results, else checkpoints that are not
    ``known`` (None: they are not wanted now).
    """
    supervisor = _held(FOLDER / "supervisor.lock")  # asked first: what a dead supervisor wrote is final
    training = _held(FOLDER / "training.lock")
    state = json.loads((FOLDER / "state.json").read_text())
    lines, more = _lines(FOLDER / "log.txt", after)
    checkpoints = {path.name: path.stat().st_mtime_ns for path in _files(FOLDER / "checkpoints")}
    packed: list[str] = []
    if not more and (state["ended"] is not None or not (supervisor or training)):
        packed = ["output"] if state["exit_code"] == 0 else ["output", "checkpoints"]
    elif not more and known not in (None, checkpoints) and any(name.startswith("step-") for name in checkpoints):
        packed = ["checkpoints"]
    return {
        "supervisor": supervisor,
        "training": training,
        "state": state,
        "log": base64.b64encode(zlib.compress(lines)).decode(),
        "more": more,
        "checkpoints": checkpoints,
        "packed": packed,
        "parts": pack(*packed) if packed else [],
    }


def cancel() -> None:
    """Ask the supervisor to stop the training, which saves first."""
    (FOLDER / "cancel").touch()


def pack(*names: str) -> list[list[Any]]:
    """Pack these folders of the job into parts; gives path, bytes and SHA-256 of each, in order."""
    PARTS.mkdir(exist_ok=True)
    drop()
    with _Parts() as parts, tarfile.open(fileobj=parts, mode="w|") as archive:
        for path in (path for name in names for path in _files(FOLDER / name)):
            with contextlib.suppress(FileNotFoundError):  # an older checkpoint that has made room meanwhile
                archive.add(path, arcname=str(path.relative_to(FOLDER)), recursive=False)
    return parts.made


def drop() -> None:
    """Delete what was packed."""
    for path in PARTS.glob("out-*"):
        path.unlink()


def gpu() -> str:
    """The driver's own name of the machine's GPU; empty without one."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def untouched() -> bool:
    """Whether nobody has laid anything here: the machine is as Colab gives it."""
    return {path.name for path in Path("/content").iterdir()} <= {".config", "sample_data"}


def train(argv: Sequence[str], environment: Mapping[str, str], secrets: Mapping[str, str], job: str) -> int:
    """Run the training in a notebook's cell, its output shown and kept; gives its exit code."""
    from local_supervisor import masked  # type: ignore[import-not-found]  # it lies beside this file there

    began = time.time()
    with (
        (FOLDER / "log.txt").open("w") as log,
        subprocess.Popen(
            list(argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment, **secrets},
        ) as training,
    ):
        assert training.stdout is not None
        for line in training.stdout:
            shown = masked(line, secrets.values())
            print(shown, end="")
            log.write(shown)
    ended = {"schema": 1, "job": job, "exit_code": training.returncode, "started": began, "ended": time.time()}
    (FOLDER / "ended.json").write_text(json.dumps(ended))
    return training.returncode


def archive(path: str) -> str:
    """Pack a notebook's results for ``ftlaunch fetch --from``; gives the path."""
    with tarfile.open(path, "w") as packed:
        for name in ("ended.json", "log.txt", "output"):
            if (FOLDER / name).exists():
                packed.add(FOLDER / name, arcname=name)
    return path


class _Parts(io.RawIOBase):
    """A file that is written in parts of at most `PART_BYTES`."""

    def __init__(self) -> None:
        self.made: list[list[Any]] = []
        """Path, bytes and SHA-256 of each part that is whole."""
        self._part: io.BufferedRandom | None = None

    def write(self, content: Any) -> int:
        """Write on, into the next part where one is full."""
        if self._part is None or self._part.tell() + len(content) > PART_BYTES:
            self._end()
            self._part = (PARTS / f"out-{len(self.made):05}").open("w+b")
        return self._part.write(content)

    def close(self) -> None:
        """End the last part."""
        self._end()
        super().close()

    def _end(self) -> None:
        if self._part is None:
            return
        with self._part as file:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.made.append([file.name, file.tell(), digest])
        self._part = None


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".new":
            yield path


def _lines(path: Path, after: int) -> tuple[bytes, bool]:
    """Whole lines from that byte on, at most so many, and whether there are more."""
    if not path.exists():
        return b"", False
    with path.open("rb") as file:
        file.seek(after)
        content = file.read(LOG_BYTES)
        more = len(content) == LOG_BYTES
    whole = content[: content.rfind(b"\n") + 1]
    return (whole or content, True) if more else (whole, False)


def _held(path: Path) -> bool:
    """Whether the holder of the lock lives (`backends.local_supervisor`)."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
