"""Makes of a job what a backend takes: staged names, digests, a name that a repeat finds again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.interface import Backend, Submission
from launcher.job import JobFile
from launcher.store import Store
from training_image.errors import InputError
from training_image.spec import Candidate, Spec

if TYPE_CHECKING:
    from launcher.image import Image

MODEL = "model"
"""Where a local base model lies in the container's data folder."""
OTHER_WEIGHTS = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".gguf"}
"""Weights that are left behind where the folder has safetensors as well."""


@dataclass(frozen=True)
class Content:
    """A job's content before it has a name."""

    spec: Spec
    """With the stem in the place of the job's name."""
    files: dict[str, Path]
    """Paths here by name in the container's data folder."""
    digests: dict[str, str]
    """SHA-256 by the same names."""
    image: str | None
    digest: str
    """Of all that decides the result and where it runs."""


def content(file: JobFile, backend: Backend, store: Store | None) -> Content:
    """Read and digest a job's files. ``store`` remembers digests of files that have not changed."""
    files = _files(file)
    digests = {name: _digest(path, store) for name, path in files.items()}
    spec = _spec(file)
    image = image_of(file, backend).reference() if backend.capabilities.image else None
    decisive = {
        "spec": spec.model_dump(mode="json", by_alias=True, exclude={"job", "base"}),
        "files": digests,
        "image": image,
        "backend": backend.name,
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return Content(spec, files, digests, image, digest)


def job_name(stem: str, digest: str, attempt: int) -> str:
    """``STEM-xxxxxxxx``: the same for the same content and attempt, whoever asks."""
    return f"{stem}-{hashlib.sha256(f'{digest} {attempt}'.encode()).hexdigest()[:8]}"


def submission(file: JobFile, backend: Backend, made: Content, name: str) -> Submission:
    """The job as its backend takes it."""
    return Submission(
        job_name=name,
        spec=made.spec.model_copy(update={"job": name}),
        files=made.digests,
        image=made.image,
        resources=file.job.machine(),
        max_seconds=file.job.max_seconds,
        secrets=tuple(file.job.secrets),
        options=file.job.backends.get(backend.name, {}),
    )


@contextlib.contextmanager
def staged(files: Mapping[str, Path]) -> Iterator[Path]:
    """A temporary data folder as the container sees it, made of links."""
    folder = Path(tempfile.mkdtemp(prefix="ftlaunch-"))
    try:
        for name, path in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
        yield folder
    finally:
        shutil.rmtree(folder)


def with_own_paths(file: JobFile) -> Spec:
    """The spec with the user's own paths instead of staged names, for messages that name files as the user does."""
    spec = _spec(file)
    data = spec.data.model_copy(update={split: os.path.relpath(path) for split, path in file.data_files().items()})
    model = spec.model if file.model_folder is None else spec.model.model_copy(update={"id": str(file.model_folder)})
    return spec.model_copy(update={"data": data, "model": model})


def _files(file: JobFile) -> dict[str, Path]:
    files = {_staged_name(split, path): path for split, path in file.data_files().items()}
    for place, name in enumerate(file.candidates):
        folder = file.folder_of_model(name)
        if folder is not None:
            files |= {f"{MODEL}-{place}/{each}": path for each, path in _model_files(folder).items()}
    if file.model_folder is not None and not file.candidates:
        files |= {f"{MODEL}/{name}": path for name, path in _model_files(file.model_folder).items()}
    return files


def _staged_name(split: str, path: Path) -> str:
    return f"{split}{path.suffix.lower()}"


def _model_files(folder: Path) -> dict[str, Path]:
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    found = {name: path for name, path in found.items() if not any(part[0] == "." for part in Path(name).parts)}
    if any(name.endswith(".safetensors") for name in found):
        found = {name: path for name, path in found.items() if path.suffix not in OTHER_WEIGHTS}
    return found


def _spec(file: JobFile) -> Spec:
    job = file.job
    sources = {split: _staged_name(split, path) for split, path in file.data_files().items()}
    model = job.model if file.model_folder is None else job.model.model_copy(update={"id": MODEL})
    candidates = [
        Candidate(name=name, id=name if file.folder_of_model(name) is None else f"{MODEL}-{place}")
        for place, name in enumerate(file.candidates)
    ]
    return Spec(
        schema=1,
        job=file.stem,
        goal=file.goal,
        candidates=candidates,
        base=file.base_model,
        model=model,
        data=job.data.model_copy(update=sources),
        task=job.task,
        train=job.train,
        evaluate=job.evaluate,
        tracking=job.tracking,
    )


def _digest(path: Path, store: Store | None) -> str:
    try:
        status = os.stat(path)
        key = (str(path), status.st_mtime_ns, status.st_size)
        known = store.remembered_digest(*key) if store else None
        if known is not None:
            return known
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if store is not None:
        with contextlib.suppress(sqlite3.OperationalError):  # only a saving of time
            store.remember_digest(*key, digest)
    return digest


def image_of(file: JobFile, backend: Backend) -> Image:
    """The image that the job's own name stands for: of this content, for the machine that it asks for."""
    from launcher.image import Image  # reads the image's files

    return Image(backend.torch(file.job.machine()), file.image_extra)
