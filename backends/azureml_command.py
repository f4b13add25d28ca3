"""The JobBase body of a plan as azure-ai-ml's ``command`` job, and its way to the service."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from backends.azure_calls import Account, translated
from backends.azureml_status import parse_duration
from backends.interface import Json

_GIT = threading.Lock()


def create(account: Account, job: Json) -> None:
    """Send a job. One of that name which is there already stays as it is. Raises BackendError."""
    with translated(), _without_git():
        account.ml.jobs.create_or_update(entity(job["name"], job["properties"]))


def make_environment(account: Account, environment: Json) -> None:
    """Let the workspace know the image under the environment's name and version; one that is there stays."""
    from azure.ai.ml.entities import Environment

    with translated():
        account.ml.environments.create_or_update(Environment(**environment))


def entity(name: str, body: Json) -> Any:
    """The SDK's job of that body."""
    from azure.ai.ml import PyTorchDistribution, command

    together, queue = body.get("distribution"), body.get("queueSettings")
    machines = body["resources"]
    return command(
        name=name,
        display_name=body["displayName"],
        experiment_name=body["experimentName"],
        command=body["command"],
        environment=body["environmentId"],
        compute=body.get("computeId"),
        inputs={key: _data(each) for key, each in body["inputs"].items()},
        outputs={key: _data(each) for key, each in body["outputs"].items()},
        distribution=PyTorchDistribution(process_count_per_instance=together["processCountPerInstance"])
        if together
        else None,
        instance_count=machines["instanceCount"],
        instance_type=machines.get("instanceType"),
        shm_size=machines["shmSize"],
        job_tier=queue["jobTier"] if queue else None,
        timeout=int(parse_duration(body["limits"]["timeout"])) if body.get("limits") else None,
        identity=_identity(body.get("identity")),
        environment_variables=body["environmentVariables"],
        tags=body["tags"],
    )


def _data(told: Json) -> Any:
    from azure.ai.ml import Input, Output

    if "jobInputType" in told:
        return Input(type=told["jobInputType"], path=told["uri"], mode="ro_mount")
    return Output(type=told["jobOutputType"], path=told["uri"], mode="rw_mount")


def _identity(told: Json | None) -> Any:
    from azure.ai.ml.entities import ManagedIdentityConfiguration

    return None if told is None else ManagedIdentityConfiguration(client_id=told.get("clientId"))


@contextlib.contextmanager
def _without_git() -> Iterator[None]:
    """The SDK adds address, branch and commit of the folder's git repository to every job, which nobody planned:
    inside, git finds none."""
    with _GIT:
        before = os.environ.get("GIT_DIR")
        os.environ["GIT_DIR"] = os.devnull
        try:
            yield
        finally:
            if before is None:
                del os.environ["GIT_DIR"]
            else:
                os.environ["GIT_DIR"] = before
