"""From a submission to Colab Enterprise's NotebookExecutionJob and its notebook: pure, without Google's libraries."""

from __future__ import annotations

import functools
import hashlib
import pprint
import re
from pathlib import Path

from pydantic import Field

from backends import bundle, cloud_request, google_secrets
from backends.cloud_request import listing_digest
from backends.google_machines import machine_for
from backends.google_request import DAY, JOB_LABEL, SMALLEST_DISK_GB, GoogleOptions, bucket_of, label, place_of
from backends.interface import (
    BackendError,
    ContainerRequest,
    Json,
    Mount,
    Plan,
    Resources,
    Submission,
)
from training_image.contracts import COLAB_ENTERPRISE

NAME = COLAB_ENTERPRISE.service
NOTEBOOK = "notebook.ipynb"
EXECUTED = "executed"
"""Below the job's folder: where the service leaves the executed notebook."""
RUNNER = Path(__file__).with_name("colab_enterprise_runner.py")
CUDA_LOCK = "requirements.cuda.lock"
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")

HINTS = {
    "project": f"log in to Google Cloud, or set backends.{NAME}.project to the project's id",
    "service_account": f"set backends.{NAME}.service_account: the notebook reads and writes the bucket as that account",
}

placeholder = functools.partial(cloud_request.placeholder, NAME)
unresolved = functools.partial(cloud_request.unresolved, NAME, HINTS)


class ColabEnterpriseOptions(GoogleOptions):
    """``backends.colab-enterprise``."""

    runtime_template: str | None = Field(
        None,
        pattern=r"^[\w-]+$",
        description="Id of a runtime template; default: a runtime of the machine that resources names.",
    )


def make_plan(submission: Submission) -> Plan:
    """The plan with the exact request and notebook; what is not known stands as ``<colab-enterprise.KEY>``.

    Raises BackendError for what such a job cannot have: spot machines, several machines.
    """
    options = ColabEnterpriseOptions.model_validate(submission.options)
    _check(submission.resources)
    project = options.project or placeholder("project")
    place = place_of(options.bucket or bucket_of(project, options.region), options.prefix, submission.job_name)
    machine = None if _by_template_alone(submission, options) else machine_for(submission.resources)
    given = _given(submission, project, place) | {"gpu": bool(machine and machine.accelerator)}
    request: Json = {
        "project": options.project or placeholder("project"),
        "region": options.region,
        "secrets": dict.fromkeys(submission.secrets, "***"),
        "code": code_digests(),
        "notebook": _notebook(submission.job_name, given),
        "notebookExecutionJobId": execution_id(submission.job_name),
        "notebookExecutionJob": _execution(submission, options, place),
    }
    return Plan(
        backend=NAME,
        job_name=submission.job_name,
        request=request,
        inputs=submission.files,
        unresolved=unresolved(request),
        spec=submission.spec,
        max_seconds=submission.max_seconds,
        machine=machine.listed if machine else None,
        region=options.region,
    )


def container(plan: Plan) -> ContainerRequest:
    """What the notebook starts for the request, for a rehearsal without the notebook."""
    parameters = plan.request["notebook"]["metadata"]["ftlaunch"]
    return ContainerRequest(
        service=NAME,
        mounts=(
            Mount(name=str(COLAB_ENTERPRISE.data), holds="data"),
            Mount(name=str(COLAB_ENTERPRISE.output), holds="output"),
            Mount(name=str(COLAB_ENTERPRISE.checkpoints), holds="checkpoints"),
        ),
        entrypoint=COLAB_ENTERPRISE.python,
        environment=parameters["environment"],
    )


def execution_id(job_name: str) -> str:
    """The execution's id: the job's name, where the service takes it; else one made of it. At most 63 characters."""
    if _ID.fullmatch(job_name):
        return job_name
    mark = hashlib.sha256(job_name.encode()).hexdigest()[:8]
    return f"ft-{re.sub(r'[^a-z0-9-]', '-', job_name.lower())[:50]}-{mark}"


@functools.cache
def code_files() -> dict[str, bytes]:
    """What the notebook installs: the training code's wheel and the locks, by file name; made once a process."""
    name, wheel = bundle.wheel()
    lock = bundle.lock()
    return {name: wheel, lock.name: lock.read_bytes(), CUDA_LOCK: lock.with_name(CUDA_LOCK).read_bytes()}


def code_digests() -> dict[str, str]:
    """SHA-256 of each of `code_files`."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in code_files().items()}


def _check(resources: Resources) -> None:
    if resources.spot:
        hint = "leave out resources.spot, or take --backend vertex"
        raise BackendError("Colab Enterprise executes notebooks on demand only, not on spot machines", hint=hint)
    if resources.machines > 1:
        hint = "leave out resources.machines, or take --backend vertex"
        raise BackendError("a notebook is executed on one machine", hint=hint)


def _by_template_alone(submission: Submission, options: ColabEnterpriseOptions) -> bool:
    """Whether only the template knows the machine."""
    asked = submission.resources.gpu or submission.resources.machine
    return options.runtime_template is not None and asked is None


def _given(submission: Submission, project: str, place: str) -> Json:
    """What the notebook is told, by `colab_enterprise_runner.Job`."""
    root, code = place.rpartition("/jobs/")[0], code_digests()
    variables = google_secrets.variables(project, submission.job_name, submission.secrets)
    return {
        "project": project,
        "place": place,
        "data": f"{root}/data/{listing_digest(submission.files)}",
        "code": f"{root}/code/{listing_digest(code)}",
        "wheel": next([name, digest] for name, digest in code.items() if name.endswith(".whl")),
        "environment": COLAB_ENTERPRISE.environment | variables,
        "max_seconds": submission.max_seconds,
    }


def _execution(submission: Submission, options: ColabEnterpriseOptions, place: str) -> Json:
    job: Json = {
        "displayName": submission.job_name,
        "labels": {JOB_LABEL: label(submission.job_name)} | options.labels,
        "gcsNotebookSource": {"uri": f"{place}/{NOTEBOOK}"},
        "gcsOutputUri": f"{place}/{EXECUTED}",
        "serviceAccount": options.service_account or placeholder("service_account"),
        "executionTimeout": f"{submission.max_seconds or DAY}s",
    }
    if options.runtime_template is not None:
        project = options.project or placeholder("project")
        parent = f"projects/{project}/locations/{options.region}"
        name = f"{parent}/notebookRuntimeTemplates/{options.runtime_template}"
        return job | {"notebookRuntimeTemplateResourceName": name}
    return job | {"customEnvironmentSpec": _environment(submission.resources)}


def _environment(resources: Resources) -> Json:
    """The runtime: its machine, its disk, and a way to the package index."""
    machine = machine_for(resources)
    spec: Json = {"machineType": machine.name}
    if machine.accelerator:
        spec |= {"acceleratorType": machine.accelerator, "acceleratorCount": machine.gpus}
    return {
        "machineSpec": spec,
        "persistentDiskSpec": {"diskSizeGb": str(max(SMALLEST_DISK_GB, resources.disk_gb))},
        "networkSpec": {"enableInternetAccess": True},
    }


def _notebook(job_name: str, given: Json) -> Json:
    """The notebook in nbformat's version 4.5."""
    about = (
        f"# {job_name}\n\nMade by ftlaunch. The next cell is the program that runs the job, the last one starts it "
        "with what it needs to know; secrets are named there, and read by the training alone."
    )
    call = f"Job({pprint.pformat(given, sort_dicts=False, width=100)}).run()"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}, "ftlaunch": given},
        "cells": [
            {"cell_type": "markdown", "id": "about", "metadata": {}, "source": about},
            _code("program", RUNNER.read_text(encoding="utf-8")),
            _code("run", call),
        ],
    }


def _code(name: str, source: str) -> Json:
    return {
        "cell_type": "code", "id": name, "metadata": {}, "execution_count": None, "outputs": [], "source": source,
    }  # fmt: skip
