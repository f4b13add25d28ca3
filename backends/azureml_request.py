"""From a submission to Azure ML's JobBase body of a command job: pure, without azure-ai-ml."""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Literal

from pydantic import Field

from backends import cloud_request
from backends.azure_machines import gpus, machine_for
from backends.cloud_request import listing_digest, without_none
from backends.interface import (
    BackendOptions,
    ContainerRequest,
    Json,
    Mount,
    Plan,
    Resources,
    Submission,
)
from training_image.secrets import VARIABLE as SECRET_VARIABLE

NAME = "azureml"
JOB_TAG = "ftlaunch:job"
SECRET_STORE = "keyvault:"  # noqa: S105  # beginning of that variable's value, see training_image.secrets
ENVIRONMENT = "ftlaunch"
"""Name of the Azure ML environments that hold our images; their version tells which."""
SHARED_MEMORY = "8g"
"""Of the container: the processes of several GPUs meet there, and Docker's own 64 MB are too few."""
COMMAND = (
    "exec python -m training_image train --spec ${{inputs.spec}}/spec.json --data ${{inputs.data}}"
    " --output ${{outputs.output}} --checkpoints ${{outputs.checkpoints}}"
)
"""``exec``, so that the shell that Azure ML starts is replaced and a signal reaches the training itself."""
ACR_IMAGE = re.compile(r"^(?P<host>[a-z0-9]+\.azurecr\.(?:io|cn|us))/(?P<rest>.+)$")
"""An image in a container registry of Azure, with tag or digest."""
_TAG = re.compile(r"[A-Za-z0-9_.-]+")

HINTS = {
    "subscription": "set backends.azureml.subscription to the subscription's id (az account show --query id)",
    "resource_group": "set backends.azureml.resource_group to the resource group of the workspace",
    "workspace": "set backends.azureml.workspace to the name of the Azure ML workspace",
    "registry": "set backends.azureml.registry to a container registry (NAME of NAME.azurecr.io)",
    "key_vault": "set backends.azureml.key_vault to a key vault (NAME of NAME.vault.azure.net)",
    "image": "build one (ftlaunch image build), or set backends.azureml.image to an image in a container registry",
}

placeholder = functools.partial(cloud_request.placeholder, NAME)
unresolved = functools.partial(cloud_request.unresolved, NAME, HINTS)
is_own_image = functools.partial(cloud_request.is_own_image, elsewhere=ACR_IMAGE)


class AzureMLOptions(BackendOptions):
    """``backends.azureml``."""

    subscription: str | None = Field(
        None, pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="Id; default: the only one you see."
    )
    resource_group: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_().-]+$", description="Resource group of the workspace; default: looked up."
    )
    workspace: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,32}$",
        description="Workspace; default: the only one in the subscription.",
    )
    region: str = Field("eastus", pattern=r"^[a-z]+\d?$", description="Region of the workspace, for price and quota.")
    compute: str | None = Field(
        None, pattern=r"^[A-Za-z][A-Za-z0-9-]{1,31}$", description="Compute cluster; default: serverless."
    )
    registry: str | None = Field(
        None, pattern=r"^[a-z0-9]{5,50}$", description="Container registry of the image; default: the workspace's."
    )
    repository: str = Field(
        "ftlaunch", pattern=r"^[a-z0-9]+([._/-][a-z0-9]+)*$", description="Repository of the image in the registry."
    )
    image: str | None = Field(
        None, pattern=ACR_IMAGE.pattern, description="Image in a container registry of Azure, instead of the job's own."
    )
    key_vault: str | None = Field(
        None, pattern=r"^[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]$", description="Key vault; default: the workspace's."
    )
    identity: str | None = Field(
        None, description="Client id of the managed identity that the job acts as; default: the compute's own."
    )
    datastore: str = Field(
        "workspaceblobstore",
        pattern=r"^[A-Za-z0-9_]+$",
        description="Blob datastore for data, results and checkpoints.",
    )
    prefix: str = Field(
        "ftlaunch", pattern=r"^[\w.-]+(/[\w.-]+)*$", description="Prefix of everything in the datastore."
    )
    experiment: str = Field(
        "ftlaunch",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        description="Experiment that the studio lists the job under.",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the job.")


def make_plan(submission: Submission) -> Plan:
    """The plan with the exact body; what is not known stands as ``<azureml.KEY>``."""
    options = AzureMLOptions.model_validate(submission.options)
    image = image_uri(submission.image, options)
    body = _body(submission, options, image)
    request = {
        "subscription": options.subscription or placeholder("subscription"),
        "resource_group": options.resource_group or placeholder("resource_group"),
        "workspace": options.workspace or placeholder("workspace"),
        "spot": submission.resources.spot,
        "secrets": dict.fromkeys(submission.secrets, "***"),
        "Environment": {"name": ENVIRONMENT, "version": _version(image), "image": image},
        "JobBase": {"name": submission.job_name, "properties": body},
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
        machine=_machine(submission.resources, options),
        region=options.region,
    )


def container(plan: Plan) -> ContainerRequest:
    """What Azure ML starts for the body."""
    body: Json = plan.request["JobBase"]["properties"]
    holds: dict[str, Literal["spec", "data", "output", "checkpoints"]] = {
        "spec": "spec",
        "data": "data",
        "output": "output",
        "checkpoints": "checkpoints",
    }
    names = [*body["inputs"], *body["outputs"]]
    run = plan.request["JobBase"]["name"]
    return ContainerRequest(
        service=NAME,
        mounts=tuple(Mount(name=name, holds=holds[name]) for name in names),
        arguments=(body["command"],),
        environment=body["environmentVariables"],
        derived={
            "AZUREML_RUN_ID": run,
            "AZUREML_ROOT_RUN_ID": run,
            "AZUREML_ARM_SUBSCRIPTION": plan.request["subscription"],
            "AZUREML_ARM_RESOURCEGROUP": plan.request["resource_group"],
            "AZUREML_ARM_WORKSPACE_NAME": plan.request["workspace"],
            "AZUREML_ARM_PROJECT_NAME": body["experimentName"],
            "MLFLOW_EXPERIMENT_NAME": body["experimentName"],
            "MLFLOW_RUN_ID": run,
        },
    )


def filled(request: Json, known: dict[str, str]) -> Json:
    """The request with these facts in the place of their placeholders."""
    made = cloud_request.filled(NAME, request, known)
    image = made["Environment"]["image"]
    # The version is that of the whole name, which a registry found later belongs to.
    old, new = made["Environment"]["version"], _version(image)
    made["Environment"]["version"] = new
    properties = made["JobBase"]["properties"]
    properties["environmentId"] = f"{properties['environmentId'].removesuffix(old)}{new}"
    return made


def scope(subscription: str, resource_group: str, workspace: str) -> str:
    """The workspace's resource id."""
    return (
        f"/subscriptions/{subscription}/resourceGroups/{resource_group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
    )


def secret_name(job_name: str, name: str) -> str:
    """The name of a job's secret in the key vault, which takes letters, digits and hyphens in either case alike."""
    readable = re.sub(r"[^A-Za-z0-9]", "-", name)[:40]
    return f"ftlaunch-{job_name}-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def image_uri(image: str | None, options: AzureMLOptions) -> str:
    """The image's name in the container registry, which the job's own image is pushed under."""
    if options.image or (image and ACR_IMAGE.fullmatch(image)):
        return str(options.image or image)
    if image is None:
        return placeholder("image")
    # A tag of the content: the same image has the same name in every registry.
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return f"{options.registry or placeholder('registry')}.azurecr.io/{options.repository}:{tag if colon else 'latest'}"


def duration(seconds: int) -> str:
    """Seconds in the form of ISO 8601 in which the SDK writes them: ``P1DT2H3M4S``."""
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    date = f"{days}D" if days else ""
    time = "".join(f"{value}{unit}" for value, unit in ((hours, "H"), (minutes, "M"), (left, "S")) if value)
    return f"P{date}{'T' + time if time else ''}" if date or time else "PT0S"


def _version(image: str) -> str:
    """The version of the environment that holds an image: its tag for people, and a digest over the whole name."""
    tag = image.rpartition("/")[2].partition(":")[2]
    short = hashlib.sha256(image.encode()).hexdigest()[:8]
    return f"{tag}-{short}" if _TAG.fullmatch(tag) else short


def _body(submission: Submission, options: AzureMLOptions, image: str) -> Json:
    place = f"azureml://datastores/{options.datastore}/paths/{options.prefix}"
    job = f"{place}/jobs/{submission.job_name}"
    workspace = scope(
        *(getattr(options, key) or placeholder(key) for key in ("subscription", "resource_group", "workspace"))
    )
    body: Json = {
        "jobType": "Command",
        "displayName": submission.job_name,
        "experimentName": options.experiment,
        "command": COMMAND,
        "environmentId": f"{workspace}/environments/{ENVIRONMENT}/versions/{_version(image)}",
        "computeId": f"{workspace}/computes/{options.compute}" if options.compute else None,
        "inputs": {
            "data": _input(f"{place}/data/{listing_digest(submission.files)}/"),
            "spec": _input(f"{job}/spec/"),
        },
        "outputs": {"output": _output(f"{job}/output/"), "checkpoints": _output(f"{job}/checkpoints/")},
        **_machines(submission.resources, options),
        "limits": _limits(submission.max_seconds),
        "identity": _identity(submission, options),
        "environmentVariables": _environment(submission, options),
        "tags": {JOB_TAG: submission.job_name} | options.tags,
        "properties": {},
        "isArchived": False,
    }
    return without_none(body)


def _machines(resources: Resources, options: AzureMLOptions) -> Json:
    """Which machines, how many of them and of which tier, and the processes on them: one for each GPU.

    A cluster has machines of one size and one tier, which its owner chose; the preflight compares them with the job's.
    """
    machine = _machine(resources, options)
    processes = gpus(machine) if machine else 1
    together = {"distributionType": "PyTorch", "processCountPerInstance": processes}
    asked: Json = {
        "instanceCount": resources.machines,
        "instanceType": None if options.compute else machine,
        "shmSize": SHARED_MEMORY,
        "properties": {},
    }
    return {
        "distribution": together if resources.machines * processes > 1 else None,
        "resources": without_none(asked),
        "queueSettings": None if options.compute else {"jobTier": "Spot" if resources.spot else "Standard"},
    }


def _machine(resources: Resources, options: AzureMLOptions) -> str | None:
    """The machine size, where the job tells it or Azure ML has to choose one."""
    return machine_for(resources) if resources.gpu or resources.machine or not options.compute else None


def _limits(seconds: int | None) -> Json | None:
    return None if seconds is None else {"jobLimitsType": "Command", "timeout": duration(seconds)}


def _input(uri: str) -> Json:
    return {"jobInputType": "uri_folder", "mode": "ReadOnlyMount", "uri": uri}


def _output(uri: str) -> Json:
    """Mounted, not uploaded at the end: what is written there outlives the machine."""
    return {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": uri}


def _identity(submission: Submission, options: AzureMLOptions) -> Json | None:
    """Whom the job acts as; a managed identity is needed only to read secrets."""
    if options.identity is None and not submission.secrets:
        return None
    return without_none({"identityType": "Managed", "clientId": options.identity})


def _environment(submission: Submission, options: AzureMLOptions) -> dict[str, str]:
    vault = f"https://{options.key_vault or placeholder('key_vault')}.vault.azure.net/secrets"
    named = {
        f"{SECRET_VARIABLE}{name}": f"{SECRET_STORE}{vault}/{secret_name(submission.job_name, name)}"
        for name in submission.secrets
    }
    limit = {} if submission.max_seconds is None else {"FTLAUNCH_MAX_SECONDS": str(submission.max_seconds)}
    return limit | named
