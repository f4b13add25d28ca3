"""Files of jobs on this machine: laid in by content, which is kept once for all jobs, and brought out again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from backends.home import data_home
from backends.interface import BackendError

LINKED_FROM = 64 << 20
"""Bytes from which a file of a local model is linked and not copied."""


def place(inputs: Mapping[str, str], files: Mapping[str, Path], folder: Path) -> None:
    """Bring files under their staged names into the folder, and see that each is still what its SHA-256 says."""
    for name, digest in inputs.items():
        target = folder / name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if "/" in name and files[name].stat().st_size >= LINKED_FROM:  # rows have no folder, and are edited in place
            _link(files[name], digest, target)
        else:
            _lay(files[name], digest, target)


def _link(source: Path, digest: str, target: Path) -> None:
    require_unchanged(source, digest)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        target.symlink_to(source.resolve())


def _lay(source: Path, digest: str, target: Path) -> None:
    kept = _pool() / digest
    with contextlib.suppress(OSError):  # not kept yet, or a file system without links
        return os.link(kept, target)
    new = target.with_name(f"{target.name}.part")
    new.unlink(missing_ok=True)
    shutil.copyfile(source, new)
    require_unchanged(new, digest, source)
    new.chmod(0o444)
    new.replace(target)
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.link(target, kept)
    return None


def require_unchanged(path: Path, digest: str, source: Path | None = None) -> None:
    """Raises BackendError for a file that is no longer what the plan names; ``source``: what it is a copy of."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            changed = f"{source or path} changed while the job was being submitted"
            raise BackendError(changed, hint="run the command again")


def sweep() -> None:
    """Delete the contents that no job has in its folder any more."""
    for kept in _pool().glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if kept.stat().st_nlink == 1:
                kept.unlink()


def bring(output: Path, into: Path) -> None:
    """Copy an output tree; what is there already in full is left alone."""
    for source in sorted(path for path in output.rglob("*") if path.is_file()):
        target = into / source.relative_to(output)
        if target.exists() and _size_and_time(target) == _size_and_time(source):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        shutil.copy2(source, partial)
        partial.replace(target)


def _pool() -> Path:
    return data_home() / "files"


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
