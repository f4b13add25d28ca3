"""The training code as a wheel, for places that run no image of ours: pip installs it beside the packages of the lock.

It holds ``training_image`` alone and is made of the installed package, whether of a clone or of a wheel, so that the
same code gives the same bytes anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import training_image

NAME = "ftlaunch_training"
LOCK = "requirements.lock"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can say."""


def wheel() -> tuple[str, bytes]:
    """The wheel's file name and content (PEP 427); it names no dependencies, which are those of the lock."""
    release = version("ftlaunch")
    info = f"{NAME}-{release}.dist-info"
    files = dict(_files())
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {release}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: ftlaunch\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return f"{NAME}-{release}-py3-none-any.whl", archive.getvalue()


def lock() -> Path:
    """The lock with the packages that the training code needs, by hash."""
    return Path(training_image.__file__).with_name(LOCK)


def _files() -> Iterator[tuple[str, bytes]]:
    root = Path(training_image.__file__).parent
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(root).parts)
        if path.is_file() and not hidden:
            yield f"{root.name}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
