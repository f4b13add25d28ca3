"""The checkpoints of failed and cancelled jobs, kept on this machine once container and volumes were removed.

They lie as an archive below the launcher's own folder, not among the results: they are of use to a resume alone.
"""

from __future__ import annotations

from pathlib import Path

from backends.docker_engine import Engine
from backends.docker_request import JOB, container_name
from backends.home import data_home
from backends.interface import BackendError


def keep(engine: Engine, job_name: str) -> None:
    """Bring the checkpoint folder of the job's container here, whole or not at all. Raises BackendError if not."""
    path = _path(job_name)
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for chunk in engine.packed(container_name(job_name), f"{JOB}/checkpoints"):
                file.write(chunk)
        partial.replace(path)
    except OSError as error:
        raise BackendError(f"the checkpoints cannot be kept in {path.parent}: {error.strerror}") from error


def put_back(engine: Engine, job_name: str) -> None:
    """Lay what was kept into the job's container; nothing happens if nothing was."""
    path = _path(job_name)
    if path.exists():
        engine.put_packed(container_name(job_name), JOB, path)


def forget(job_name: str) -> None:
    """The job has succeeded, or is not to go on."""
    _path(job_name).unlink(missing_ok=True)


def _path(job_name: str) -> Path:
    return data_home() / "docker" / f"{job_name}.tar"
