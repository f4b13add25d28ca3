"""Vertex AI as the conformance suite sees it."""

from typing import ClassVar

from backends.interface import Backend, Handle
from backends.vertex import Vertex
from tests.clouds.google.project import JOB_ACCOUNT
from tests.on_clouds.harness import CloudHarness
from tests.vertex.conftest import MACHINE

QUOTA = "aiplatform.googleapis.com/custom_model_training_preemptible_cpus"


class VertexHarness(CloudHarness):
    backend: ClassVar[type[Backend]] = Vertex
    machine: ClassVar[str] = MACHINE
    long_steps: ClassVar[int] = 100

    def facts(self) -> dict:
        return {"project": self.cloud.project, "service_account": JOB_ACCOUNT}

    def jobs(self, job_name: str) -> list:
        return self.cloud.custom_jobs.labelled("ftlaunch_job", job_name)

    def quota(self) -> tuple[dict, str]:
        return self.cloud.services.limits, QUOTA

    def bytes_sent(self) -> int:
        return self.cloud.buckets.received.value + self.cloud.front.received.value

    def unknown(self, handle: Handle) -> Handle:
        made = super().unknown(handle)
        nothing = [f"{name.rpartition('/')[0]}/1" for name in handle.data["runs"]]
        return made.model_copy(update={"data": made.data | {"runs": nothing}})

    def close(self) -> None:
        """The project ends with the session, and all that is in it."""
