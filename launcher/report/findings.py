"""What the check says of the very rows that a job was tuned on."""

from __future__ import annotations

from typing import Any

from backends import registry
from launcher import submission
from launcher.job import load
from launcher.report.finished import Finished
from training_image.errors import InputError


def findings(job: Finished) -> tuple[list[dict[str, Any]], str]:
    """The findings of the job's data, the gravest first, and, where there was no check, why.

    The rows are checked where they lie, as long as they are byte for byte those of the job.
    """
    if job.record is None or job.record.plan is None or not job.job_file:
        return [], "not checked: the record of jobs does not know this job"
    staged = job.record.plan.inputs
    try:
        file = load(str(job.folder / "job.yaml"))
        made = submission.content(file, registry.load(file.job.backend).create(), None)
        rows = [name for name in made.digests if not name.startswith(f"{submission.MODEL}/")]
        if any(staged.get(name) != made.digests[name] for name in rows):
            return [], "not checked: the files have changed since the job ran"
        from training_image.data.check import check
    except InputError:
        return [], "not checked: the files are not here any more"
    except ModuleNotFoundError as error:
        return [], f"not checked: that needs {error.name} (pip install 'ftlaunch[local]')"
    with submission.staged(made.files) as folder:
        found: list[dict[str, Any]] = check(made.spec, folder).as_json()["findings"]
    return found, ""
