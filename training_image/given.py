"""What a job was given: spec, rows and folders, looked at before the frameworks are loaded (all but torch).

What is wrong with them is told at once so, not after seconds of a rented machine.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from training_image.data.load import Splits, load_splits
from training_image.errors import InputError
from training_image.outputs import Outputs
from training_image.platform import Platform
from training_image.progress import emit
from training_image.spec import Spec

MARK = "job"
"""The file in the checkpoint folder that holds the job's fingerprint."""


@dataclass(frozen=True, slots=True)
class Given:
    """A job that can be begun, as far as its files tell."""

    spec: Spec
    splits: Splits
    outputs: Outputs
    fingerprint: str
    """SHA-256 over the job's spec and the files of its rows."""
    row_files: dict[str, str]
    """SHA-256 of the files of the job's rows, by name."""
    seconds: float
    """What looking took."""


def look(platform: Platform, spec: Spec) -> Given:
    """Read the rows, and try the output folder.

    Raises InputError for rows that cannot be used, an output folder that cannot be written, or another job's
    checkpoints.
    """
    began = time.perf_counter()
    emit("start", job=spec.job, platform=platform.name)
    rows = row_files(platform)
    digest = hashlib.sha256(platform.spec.read_bytes())
    for name, own in rows.items():
        digest.update(f"{name} {own}".encode())
    fingerprint = digest.hexdigest()
    known = begun_before(platform.checkpoints, fingerprint)
    outputs = Outputs(platform.output, known=known, main=platform.main)
    splits = load_splits(spec, platform.data)
    return Given(spec, splits, outputs, fingerprint, rows, time.perf_counter() - began)


def begun_before(checkpoints: Path, fingerprint: str) -> bool:
    """Whether an earlier start of this very job has left its mark there. Raises InputError for another job's."""
    mark = checkpoints / MARK
    if not mark.is_file():
        return False
    if mark.read_text() != fingerprint:
        raise InputError(
            f"{checkpoints} holds the checkpoints of another job", hint="Give an empty --checkpoints folder."
        )
    return True


def read_spec(platform: Platform) -> Spec:
    """Read spec.json. Raises InputError with every key that is wrong."""
    try:
        return Spec.model_validate_json(platform.spec.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {platform.spec}: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise InputError(f"{platform.spec}: {wrong}") from error


def row_files(platform: Platform) -> dict[str, str]:
    """SHA-256 of the files of the job's rows, by name."""
    digests = {}
    for path in sorted(path for path in platform.data.iterdir() if path.is_file() and path != platform.spec):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
