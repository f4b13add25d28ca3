"""From a submission to Vertex AI's CustomJob: pure, without Google's libraries."""

from __future__ import annotations

import functools
import re
from typing import Literal

from pydantic import Field, model_validator

from backends import cloud_request, google_secrets
from backends.cloud_request import listing_digest, without_none
from backends.google_machines import NOT_ON_DEMAND, Machine, machine_for
from backends.google_request import DAY, JOB_LABEL, SMALLEST_DISK_GB, GoogleOptions, bucket_of, label, place_of
from backends.google_storage import mounted
from backends.interface import (
    BackendError,
    ContainerRequest,
    Json,
    Mount,
    Plan,
    Resources,
    Submission,
)

NAME = "vertex"
RUN_LABEL = "ftlaunch_run"
REGISTRY_IMAGE = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev/.+")

HINTS = {
    "project": "log in to Google Cloud, or set backends.vertex.project to the project's id",
    "service_account": "set backends.vertex.service_account: a job with secrets reads them as an account of its own",
    "image": "build one (ftlaunch image build), or set backends.vertex.image to an image in Artifact Registry",
}

placeholder = functools.partial(cloud_request.placeholder, NAME)
unresolved = functools.partial(cloud_request.unresolved, NAME, HINTS)
is_own_image = functools.partial(cloud_request.is_own_image, elsewhere=REGISTRY_IMAGE)


class VertexOptions(GoogleOptions):
    """``backends.vertex``."""

    repository: str = Field(
        "ftlaunch",
        pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Artifact Registry repository of the image; made if it is missing.",
    )
    image: str | None = Field(None, description="Image in Artifact Registry that is there already.")
    scheduling: Literal["standard", "flex-start"] = Field(
        "standard", description="flex-start: queue for machines that are not free now; not with resources.spot."
    )
    max_wait_hours: float | None = Field(
        None, gt=0, description="Longest wait for machines with flex-start; default: 24."
    )
    network: str | None = Field(
        None,
        pattern=r"^projects/\d+/global/networks/[\w-]+$",
        description="Peered VPC network: projects/NUMBER/global/networks/NAME.",
    )
    kms_key: str | None = Field(None, description="Cloud KMS key that encrypts what the job keeps.")
    tensorboard: str | None = Field(
        None,
        pattern=r"^projects/[^/]+/locations/[^/]+/tensorboards/\d+$",
        description="TensorBoard instance that shows the curves; needs service_account.",
    )

    @model_validator(mode="after")
    def _whole(self) -> VertexOptions:
        if self.tensorboard and not self.service_account:
            raise ValueError("tensorboard needs service_account: Vertex AI writes the curves as that account")
        if self.max_wait_hours is not None and self.scheduling != "flex-start":
            raise ValueError("max_wait_hours belongs to scheduling: flex-start")
        return self


def make_plan(submission: Submission) -> Plan:
    """The plan with the exact request; what is not known stands as ``<vertex.KEY>``."""
    options = VertexOptions.model_validate(submission.options)
    request = {
        "project": options.project or placeholder("project"),
        "region": options.region,
        "secrets": dict.fromkeys(submission.secrets, "***"),
        "customJob": _custom_job(submission, options),
    }
    return Plan(
        backend=NAME,
        job_name=submission.job_name,
        request=request,
        inputs=submission.files,
        image=submission.image,
        unresolved=unresolved(request),
        spec=submission.spec,
        max_seconds=submission.max_seconds,
        machine=machine_for(submission.resources).listed,
        region=options.region,
    )


def container(plan: Plan) -> ContainerRequest:
    """What Vertex AI starts for the request, on its first machine."""
    spec = plan.request["customJob"]["jobSpec"]
    started, place = spec["workerPoolSpecs"][0]["containerSpec"], spec["baseOutputDirectory"]["outputUriPrefix"]
    variables = environment(plan.request["customJob"])
    inside = {
        "spec": variables["FTLAUNCH_SPEC"].rpartition("/")[0],
        "data": variables["FTLAUNCH_DATA"],
        "output": mounted(f"{place}/model"),
        "checkpoints": mounted(f"{place}/checkpoints"),
    }
    return ContainerRequest(
        service=NAME,
        mounts=tuple(Mount(name=path.removeprefix("/gcs/"), holds=what) for what, path in inside.items()),
        entrypoint=started.get("command"),
        arguments=started["args"],
        environment=variables,
        derived={
            "AIP_MODEL_DIR": f"{place}/model/",
            "AIP_CHECKPOINT_DIR": f"{place}/checkpoints/",
            "AIP_TENSORBOARD_LOG_DIR": f"{place}/logs/",
            "CLOUD_ML_REGION": plan.request["region"],
        },
    )


def environment(custom_job: Json) -> dict[str, str]:
    """The variables that a request gives its containers."""
    spec = custom_job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    return {str(each["name"]): str(each["value"]) for each in spec["env"]}


def image_uri(image: str | None, options: VertexOptions) -> str:
    """The image's name in Artifact Registry, which the job's own image is pushed under."""
    if options.image or (image and REGISTRY_IMAGE.fullmatch(image)):
        return str(options.image or image)
    if image is None:
        return placeholder("image")
    # A tag of the content: the same image has the same name in every project.
    _, colon, tag = image.rpartition("/")[2].partition(":")
    host = f"{options.region}-docker.pkg.dev/{options.project or placeholder('project')}"
    return f"{host}/{options.repository}/ftlaunch:{tag if colon else 'latest'}"


def _custom_job(submission: Submission, options: VertexOptions) -> Json:
    project = options.project or placeholder("project")
    bucket = options.bucket or bucket_of(project, options.region)
    place = place_of(bucket, options.prefix, submission.job_name)
    data = f"gs://{bucket}/{options.prefix}/data/{listing_digest(submission.files)}"
    account = options.service_account or (placeholder("service_account") if submission.secrets else None)
    job: Json = {
        "displayName": submission.job_name,
        "labels": {JOB_LABEL: label(submission.job_name), RUN_LABEL: "0"} | options.labels,
        "jobSpec": without_none(
            {
                "workerPoolSpecs": _pools(submission, options, _environment(submission, project, place, data)),
                "scheduling": _scheduling(submission, options),
                "serviceAccount": account,
                "network": options.network,
                "tensorboard": options.tensorboard,
                "baseOutputDirectory": {"outputUriPrefix": place},
            }
        ),
    }
    return job | ({"encryptionSpec": {"kmsKeyName": options.kms_key}} if options.kms_key else {})


def _environment(submission: Submission, project: str, place: str, data: str) -> dict[str, str]:
    limit = {} if submission.max_seconds is None else {"FTLAUNCH_MAX_SECONDS": str(submission.max_seconds)}
    return {
        "FTLAUNCH_SPEC": mounted(f"{place}/spec/spec.json"),
        "FTLAUNCH_DATA": mounted(data),
        **limit,
        **google_secrets.variables(project, submission.job_name, submission.secrets),
    }


def _pools(submission: Submission, options: VertexOptions, environment: dict[str, str]) -> list[Json]:
    """One pool for the first machine, whose end is the job's, and one for the others."""
    machine = machine_for(submission.resources)
    _check_rented(machine, submission.resources, options)
    pool: Json = {
        "machineSpec": {"machineType": machine.name}
        | ({"acceleratorType": machine.accelerator, "acceleratorCount": machine.gpus} if machine.accelerator else {}),
        "diskSpec": {"bootDiskSizeGb": max(SMALLEST_DISK_GB, submission.resources.disk_gb)},
        "containerSpec": {
            "imageUri": image_uri(submission.image, options),
            "args": ["train"],
            "env": [{"name": name, "value": value} for name, value in environment.items()],
        },
    }
    counts = (1, submission.resources.machines - 1)
    return [pool | {"replicaCount": str(count)} for count in counts if count]


def _check_rented(machine: Machine, resources: Resources, options: VertexOptions) -> None:
    if resources.spot and options.scheduling == "flex-start":
        raise BackendError("spot and flex-start exclude each other", hint="leave out one of them")
    if machine.name in NOT_ON_DEMAND and not resources.spot and options.scheduling == "standard":
        raise BackendError(
            f"{machine.name} is not rented on demand",
            hint="set resources.spot: true, or backends.vertex.scheduling: flex-start",
        )


def _scheduling(submission: Submission, options: VertexOptions) -> Json:
    """When Vertex AI ends the job, and whether it starts it again by itself.

    Spot machines are taken away, so those jobs are started again and go on from their checkpoint. Any other job is not:
    what fails there is the training or its data, and the service would pay up to three more runs for the same end.
    """
    spot, several = submission.resources.spot, submission.resources.machines > 1
    strategy = "SPOT" if spot else "FLEX_START" if options.scheduling == "flex-start" else "STANDARD"
    scheduling: Json = {
        "timeout": f"{submission.max_seconds or DAY}s",
        "strategy": strategy,
        "disableRetries": not spot,
    }
    if spot and several:
        scheduling["restartJobOnWorkerRestart"] = True  # the machines train in step
    if options.scheduling == "flex-start":
        scheduling["maxWaitDuration"] = f"{round((options.max_wait_hours or 24) * 3600)}s"
    return scheduling
