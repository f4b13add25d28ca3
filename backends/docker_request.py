"""The request of a job in a local container: the configuration that the engine's create call takes.

Everything goes into the container by the engine's API, into two volumes of the job's own, so that a remote engine works
the same: the data, which the training sees read-only, and what it writes::

    /ftlaunch/data                                     the staged files
    /ftlaunch/job/spec.json output/ checkpoints/       what the container reads and writes
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from backends.docker_engine import LABEL
from backends.interface import BackendOptions, Json, Plan, Submission, Unresolved

PREFIX = "ftlaunch-"
"""Beginning of the container's name; the job's name follows."""
DATA = "/ftlaunch/data"
JOB = "/ftlaunch/job"
SECRETS = "/ftlaunch/secrets"
LIMIT_LABEL = "ftlaunch.max_seconds"
SECRETS_LABEL = "ftlaunch.secrets"
PROGRAM = ("/opt/venv/bin/python", "-m", "training_image")
"""The image's entry point, said again where a time limit stands before it."""
SHARED_MEMORY = 1 << 30
"""Bytes at most of /dev/shm; the engine's 64 MiB are too few for several GPUs."""
GPU = "backends.docker.gpu"
GPU_PLACEHOLDER = "<docker.gpu>"
GPU_HINT = "asked of the engine before the start; required or never settles it"
DEVICES: list[Json] = [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]
"""Every GPU of the engine's machine."""


class DockerOptions(BackendOptions):
    """``backends.docker``."""

    image: str | None = Field(None, description="Prebuilt image instead of the job's own; pulled where it is missing.")
    gpu: Literal["auto", "required", "never"] = Field(
        "auto", description="With resources.gpu: auto takes the CPU where the engine has no NVIDIA runtime."
    )
    memory_gb: float | None = Field(None, gt=0, description="Most memory in GB; the job is killed beyond it.")
    network: str | None = Field(
        None, description="Network of the container; default: none, unless something must be fetched or sent."
    )
    grace_seconds: int = Field(120, gt=0, description="Seconds between asking the training to stop and killing it.")


def container_name(job_name: str) -> str:
    """The name of the job's container, and of the volume that it writes to."""
    return PREFIX + job_name


def data_volume(job_name: str) -> str:
    """The name of the volume with the job's data."""
    return f"{container_name(job_name)}-data"


def make_plan(submission: Submission) -> Plan:
    """The exact create call. Pure."""
    options = DockerOptions.model_validate(submission.options)
    name = container_name(submission.job_name)
    asked = bool(submission.resources.gpu) and options.gpu != "never"
    open_question = asked and options.gpu == "auto"
    host: Json = {
        "Mounts": [
            {"Type": "volume", "Source": data_volume(submission.job_name), "Target": DATA, "ReadOnly": True},
            {"Type": "volume", "Source": name, "Target": JOB},
        ],
        "NetworkMode": _network(submission, options),
        "ShmSize": SHARED_MEMORY,
        "SecurityOpt": ["no-new-privileges"],
        "DeviceRequests": GPU_PLACEHOLDER if open_question else DEVICES if asked else [],
    }
    if options.memory_gb is not None:
        # Swap counts in: a job that swaps would rather be known to be too large.
        host |= {"Memory": math.ceil(options.memory_gb * 1e9), "MemorySwap": math.ceil(options.memory_gb * 1e9)}
    return Plan(
        backend="docker",
        job_name=submission.job_name,
        request={
            "name": name,
            "config": _config(submission, options, host),
            "secrets": dict.fromkeys(submission.secrets, "***"),
            "machines": submission.resources.machines,
            "gpu": submission.resources.gpu,
            "pull": options.image is not None,
        },
        inputs=submission.files,
        image=submission.image,
        unresolved=(Unresolved(path=GPU, hint=GPU_HINT),) if open_question else (),
        spec=submission.spec,
        max_seconds=submission.max_seconds,
    )


def with_gpu(plan: Plan, there: bool) -> Plan:
    """The plan with the question settled whether the engine can give GPUs."""
    config = plan.request["config"]
    host = config["HostConfig"] | {"DeviceRequests": DEVICES if there else []}
    request = plan.request | {"config": config | {"HostConfig": host}}
    rest = tuple(each for each in plan.unresolved if each.path != GPU)
    return plan.model_copy(update={"request": request, "unresolved": rest})


def _config(submission: Submission, options: DockerOptions, host: Json) -> Json:
    folders = {"spec": f"{JOB}/spec.json", "data": DATA, "output": f"{JOB}/output", "checkpoints": f"{JOB}/checkpoints"}
    arguments = ["train", *(part for flag, path in folders.items() for part in (f"--{flag}", path))]
    environment = {f"FTLAUNCH_SECRET_{name}": f"file:{SECRETS}/{name}" for name in submission.secrets}
    if host["NetworkMode"] == "none":
        environment["HF_HUB_OFFLINE"] = "1"
    config: Json = {
        "Image": options.image or submission.image,
        "Cmd": arguments,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {
            LABEL: submission.job_name,
            LIMIT_LABEL: str(submission.max_seconds or ""),
            SECRETS_LABEL: ",".join(submission.secrets),
        },
        "StopTimeout": options.grace_seconds,
        "HostConfig": host,
    }
    if submission.max_seconds is not None:
        config["Entrypoint"] = _limited(submission.max_seconds, options.grace_seconds)
    return config


def _limited(seconds: int, grace: int) -> list[str]:
    """The engine knows no longest run time, so the container keeps it, whether or not a launcher still runs; the
    training is told when it will be. ``timeout`` hands SIGTERM on, and ends with 124 where it had to stop the training.
    """
    script = (
        f"export FTLAUNCH_DEADLINE=$(($(date +%s) + {seconds}));"
        f' exec timeout --foreground --kill-after={grace} {seconds} "$@"'
    )
    return ["/bin/sh", "-c", script, "limited", *PROGRAM]


def _network(submission: Submission, options: DockerOptions) -> str:
    if options.network is not None:
        return options.network
    spec = submission.spec
    sources = (spec.data.train, spec.data.validation, spec.data.test)
    fetches = "model/config.json" not in submission.files or any(each and each.startswith("hub:") for each in sources)
    sends = any(tracker != "tensorboard" for tracker in spec.tracking.report_to)
    return "bridge" if fetches or sends else "none"
