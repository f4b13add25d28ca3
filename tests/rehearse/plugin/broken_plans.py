"""Backends whose plans are broken on purpose, installed as anyone's plug-ins are."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backends.interface import BackendOptions, ContainerRequest, Mount, Plan, Submission
from backends.local import Local
from backends.sagemaker import SageMaker


class SpoiledOptions(BackendOptions):
    service: str = "sagemaker"
    environment: dict[str, str] = Field(default_factory=dict)
    hyperparameters: dict[str, object] = Field(default_factory=dict)
    line: str = ""


class SpoiledSageMaker(SageMaker):
    """The real backend's request, with variables and hyperparameters added."""

    name: ClassVar[str] = "spoiled-sagemaker"
    options: ClassVar[type[BackendOptions]] = SpoiledOptions

    def plan(self, submission: Submission) -> Plan:
        options = SpoiledOptions.model_validate(submission.options)
        plan = super().plan(submission.model_copy(update={"options": {}}))
        plan.request["CreateTrainingJob"]["Environment"] |= options.environment
        plan.request["CreateTrainingJob"]["HyperParameters"] = options.hyperparameters
        return plan


class Spoiled(Local):
    """A place of another service, that starts a command line of its own."""

    name: ClassVar[str] = "spoiled"
    options: ClassVar[type[BackendOptions]] = SpoiledOptions

    def plan(self, submission: Submission) -> Plan:
        plan = super().plan(submission.model_copy(update={"options": {}}))
        return plan.model_copy(update={"request": submission.options})

    def container(self, plan: Plan) -> ContainerRequest:
        options = SpoiledOptions.model_validate(plan.request)
        folders = {"azureml": ("data", "output", "checkpoints"), "vertex": ("b/data", "b/out", "b/checkpoints")}
        data, output, checkpoints = folders[options.service]
        return ContainerRequest(
            service=options.service,
            mounts=(
                Mount(name=data, holds="data"),
                Mount(name=output, holds="output"),
                Mount(name=checkpoints, holds="checkpoints"),
            ),
            entrypoint=("/bin/sh", "-c"),
            arguments=(options.line,),
            environment=options.environment,
        )
