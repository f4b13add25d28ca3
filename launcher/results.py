"""Brings a job's output here: whole or not at all under its final name, checked against the container's manifest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from backends import secret_values
from backends.interface import Backend, BackendError, Handle, JobNotFound, Reason, State
from launcher.store import Record, Store
from training_image.errors import InputError

UNSAFE = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".h5"}
"""Weights that run code when they are loaded, or might: never fetched, only safetensors are."""

MANIFEST = "manifest.json"
PAUSES = (0.5, 2.0, 5.0)
"""Seconds after a fetch that broke off before it is gone on with; then it is the user's turn."""

Say = Callable[[str], None]


def prepare_target(target: Path) -> None:
    """See, before anything is started, that the results can be written. Raises InputError if not."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"the output folder {target} exists already", hint="name another with --output, or move it")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.") as probe:  # two may try at once
            probe.write(b"0" * 4096)


def collect(record: Record, store: Store, backend: Backend, output: Path | None, say: Say) -> Path | None:
    """Fetch an ended job's results; gives their folder, None if there are none (a job that failed early).

    A second call finds them there. Raises InputError for a folder that is in the way or cannot be written,
    BackendError for what the place does not give or what does not match the manifest.
    """
    target = output.absolute() if output else Path(record.target)
    with store.lock(f"{record.job}.fetch"), disk_errors(target):
        record = store.get(record.job) or record
        there = Path(record.output) if record.output else None
        if there is not None and there.is_dir() and there == target:
            return there
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            if not _is_whole(target, record):
                hint = "name another with --output, or move it"
                raise InputError(f"the output folder {target} exists already", hint=hint)
        elif not _bring(record, store, backend, there, target, say):
            _free(record, store, backend, say)
            return None
        store.update(record.job, output=str(target))
    _free(record, store, backend, say)
    return target


def _free(record: Record, store: Store, backend: Backend, say: Say) -> None:
    """Free what the place held for the fetch; what a failed job needs for a resume is kept, until a later attempt at
    the same content succeeds: nobody resumes it then."""
    succeeded = record.state is State.SUCCEEDED
    earlier = [each for each in store.of_content(record.content) if each.attempt < record.attempt and each.output]
    for each in [record, *(earlier if succeeded else ())]:
        if each.handle is not None:
            try:
                (backend.remove if succeeded else backend.release)(each.handle)
            except JobNotFound:
                continue  # it holds nothing
            except BackendError as error:
                say(f"{backend.name} still holds what {each.job} used: {error.message}")


def verify(folder: Path) -> list[str]:
    """The files of a fetched tree that are missing or not as its manifest says; empty if all is well."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {str(name): (str(each["sha256"]), int(each["bytes"])) for name, each in told["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [MANIFEST]
    return [name for name, each in files.items() if not _inside(folder, name) or not _matches(folder / name, *each)]


def _bring(record: Record, store: Store, backend: Backend, there: Path | None, target: Path, say: Say) -> bool:
    """Fetch into a folder beside the target and rename it; False if nothing came. The folder is of this job and of this
    end of it, as what broke off of another must not get among its results."""
    part = target.parent / f".{record.job}-{record.ended or 0:.0f}.part"
    part.mkdir(parents=True, exist_ok=True)
    if there is not None and there.is_dir():
        shutil.copytree(there, part, dirs_exist_ok=True)
    else:
        _fetch(record, backend, part)
        refuse_unsafe(part)
        _keep_log(record, backend, store)
        if not any(part.iterdir()):
            part.rmdir()
            return False
        wrong = verify(part)
        if wrong and record.state is State.SUCCEEDED:
            wrong = _once_more(record, backend, part, wrong)
        if wrong and record.state is State.SUCCEEDED:
            message = f"{len(wrong)} files of {record.job} do not match their checksums: {', '.join(wrong[:5])}"
            raise BackendError(message, hint=f"ftlaunch fetch {record.job} tries again")
        if wrong:
            say("partial results: the job did not come to write all of them")
        if record.as_submitted:
            (part / "job.yaml").write_text(record.as_submitted, encoding="utf-8")
    part.rename(target)  # an empty target gives way
    return True


def _fetch(record: Record, backend: Backend, part: Path) -> None:
    if record.handle is None:
        raise BackendError(f"{record.job} was never started", hint="run it again")
    if record.state is not State.SUCCEEDED and not backend.capabilities.partial_fetch:
        raise BackendError(f"{backend.name} gives no results of a job that is {record.state}")
    for pause in PAUSES:
        try:
            return backend.fetch(record.handle, part)
        except BackendError as error:
            if isinstance(error, JobNotFound) or error.reason is Reason.CREDENTIALS:
                raise
            time.sleep(pause)
    return backend.fetch(record.handle, part)


def _once_more(record: Record, backend: Backend, part: Path, wrong: list[str]) -> list[str]:
    for name in wrong:
        if _inside(part, name):
            (part / name).unlink(missing_ok=True)
    _fetch(record, backend, part)
    return verify(part)


def refuse_unsafe(folder: Path) -> None:
    """Raise BackendError for a link that leads out of the folder, and for weights that may run code."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        if not path.resolve().is_relative_to(root):
            raise BackendError(f"the results hold a link that leads out of their folder: {path.relative_to(folder)}")
        if path.suffix in UNSAFE:
            path.unlink()
            raise BackendError(f"the results hold weights that are not safetensors: {path.relative_to(folder)}")


def _is_whole(folder: Path, record: Record) -> bool:
    """Whether the folder holds this job's results already: the launcher died between the rename and the record."""
    result = folder / "result.json"
    if not result.is_file() or verify(folder):
        return False
    return bool(json.loads(result.read_text(encoding="utf-8")).get("job") == record.job)


def _inside(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _matches(path: Path, sha256: str, size: int) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _keep_log(record: Record, backend: Backend, store: Store) -> None:
    """Keep the job's output with the record, as its place may forget it."""
    handle: Handle | None = record.handle
    if handle is None:
        return
    path = store.log(record.job)
    path.parent.mkdir(exist_ok=True)
    secrets = secret_values.known(record.secrets)
    with path.open("w", encoding="utf-8") as file, contextlib.suppress(BackendError):
        for line in backend.logs(handle, None):
            file.write(secret_values.mask(line.text, secrets) + "\n")


@contextlib.contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Tell a full or read-only disk as InputError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = "there is no space left for" if full else "cannot write"
        why = "" if full else f": {error.strerror or os.strerror(error.errno or 0)}"
        raise InputError(f"{said} the output folder {target}{why}", hint="name another with --output") from error
