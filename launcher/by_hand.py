"""A job that a person runs from a notebook: it is written here, and what it left is taken in as any results are."""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

from backends import secret_values, supervised
from backends.interface import State
from launcher import results
from launcher.lifecycle import Planned, needing_extra
from launcher.results import Say
from launcher.store import Record, Store
from launcher.watch import BY_HAND
from training_image.errors import InputError

ENDED, LOG, OUTPUT = "ended.json", "log.txt", "output"
"""What an archive holds (`backends.colab_vm.archive`): how it ended, the training's lines, the output tree."""


def write(planned: Planned, store: Store, output: Path | None) -> tuple[Record, list[Path]]:
    """Write the notebook into the current folder and record the job; gives its files too, the notebook first.

    Raises InputError for a place without such a way, and for a job that is running already.
    """
    plan, backend = planned.plan, planned.backend
    if planned.live is not None and planned.live.native_state != BY_HAND:
        raise InputError(f"{plan.job_name} is running already", hint=f"ftlaunch cancel {plan.job_name} stops it")
    if plan.unresolved:
        missing = plan.unresolved[0]
        raise InputError(f"not given: {missing.path}", hint=missing.hint)
    target = planned.target(output)
    results.prepare_target(target)
    with results.disk_errors(Path.cwd()), needing_extra(backend):
        files = backend.notebook(plan, planned.content.files, Path.cwd())
    if not files:
        raise InputError(f"{backend.name} runs no notebooks by hand", hint="--notebook goes with --backend colab")
    return store.add(planned.record(target, BY_HAND)), files


def take_in(record: Record, archive: Path, store: Store, output: Path | None, say: Say) -> Path:
    """Unpack a notebook's archive to the job's results, checked against the manifest; gives their folder.

    Raises InputError for what is no archive of this job, or damaged, and for a folder in the way.
    """
    target = output.absolute() if output else Path(record.target)
    with store.lock(f"{record.job}.fetch"), results.disk_errors(target):
        results.prepare_target(target)
        part = target.parent / f".{target.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            ended = _unpacked(record, archive, part)
            status = supervised.ended(part, ended)
            folder = part / OUTPUT
            folder.mkdir(exist_ok=True)
            results.refuse_unsafe(folder)
            wrong = results.verify(folder)
            if wrong and status.state is State.SUCCEEDED:
                message = f"{len(wrong)} files in {archive} do not match their checksums: {', '.join(wrong[:5])}"
                raise InputError(message, hint="save the archive from the notebook again: run its last cell")
            if wrong:
                say("partial results: the job did not come to write all of them")
            if record.as_submitted:
                (folder / "job.yaml").write_text(record.as_submitted, encoding="utf-8")
            _keep_log(record, part / LOG, store)
            folder.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        began = record.submitted or float(ended["started"])
        store.update(record.job, submitted=began, ended=None)
        store.observe(record.job, status)
        store.update(record.job, ended=float(ended["ended"]), output=str(target))
    return target


def _unpacked(record: Record, archive: Path, into: Path) -> dict[str, Any]:
    """Unpack with the filter that lets nothing out of the folder; gives how the job ended."""
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(into, filter="data")
        ended: dict[str, Any] = json.loads((into / ENDED).read_text(encoding="utf-8"))
        told = {
            "exit_code": int(ended["exit_code"]),
            "cause": "exit",
            "started": float(ended["started"]),
            "ended": min(float(ended["ended"]), time.time()),
        }
        job = str(ended["job"])
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        hint = "it is the .tar file that the notebook's last cell saves"
        raise InputError(f"{archive} is no archive of a notebook of ours: {error}", hint=hint) from error
    except FileNotFoundError as error:
        hint = "name the .tar file that the notebook's last cell saves"
        raise InputError(f"{archive}: {error.strerror}: {error.filename}", hint=hint) from error
    if job != record.job:
        raise InputError(f"{archive} holds the results of {job}, not of {record.job}", hint=f"ftlaunch fetch {job}")
    return told


def _keep_log(record: Record, log: Path, store: Store) -> None:
    if not log.is_file():
        return
    path = store.log(record.job)
    path.parent.mkdir(exist_ok=True)
    secrets = secret_values.known(record.secrets)
    path.write_text(secret_values.mask(log.read_text(encoding="utf-8", errors="replace"), secrets), encoding="utf-8")
