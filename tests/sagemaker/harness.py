"""SageMaker as the conformance suite sees it."""

from typing import ClassVar

from backends.interface import Backend
from backends.sagemaker import SageMaker
from tests.on_clouds.harness import CloudHarness
from tests.sagemaker.conftest import MACHINE


class SageMakerHarness(CloudHarness):
    backend: ClassVar[type[Backend]] = SageMaker
    machine: ClassVar[str] = MACHINE
    poll_seconds: ClassVar[float] = 0.6
    long_steps: ClassVar[int] = 100

    def facts(self) -> dict:
        bucket = f"sagemaker-{self.cloud.region}-{self.cloud.account}"
        return {"role": self.cloud.role, "account": self.cloud.account, "bucket": bucket}

    def jobs(self, job_name: str) -> list:
        jobs = [job for job in self.cloud.training.jobs.values() if job.tags.get("ftlaunch:job") == job_name]
        return sorted(jobs, key=lambda job: job.created)

    def quota(self) -> tuple[dict, str]:
        return self.cloud.quotas.values, f"{MACHINE} for spot training job usage"

    def bytes_sent(self) -> int:
        return self.cloud.received.value + self.cloud.front.received.value
