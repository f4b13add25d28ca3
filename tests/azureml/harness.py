"""Azure ML as the conformance suite sees it; its small job is serverless."""

from typing import ClassVar

from backends.azureml import AzureML
from backends.interface import Backend
from tests.clouds.azure.account import MACHINE
from tests.clouds.azure.quotas import LOW_PRIORITY
from tests.on_clouds.harness import CloudHarness


class AzureMLHarness(CloudHarness):
    backend: ClassVar[type[Backend]] = AzureML
    machine: ClassVar[str] = MACHINE
    poll_seconds: ClassVar[float] = 0.6
    long_steps: ClassVar[int] = 100

    def facts(self) -> dict:
        return {
            "subscription": self.cloud.subscription,
            "resource_group": self.cloud.group,
            "workspace": self.cloud.workspace,
            "registry": self.cloud.registry.name,
            "key_vault": self.cloud.vault.name,
        }

    def jobs(self, job_name: str) -> list:
        jobs = [job for job in self.cloud.jobs.jobs.values() if job.tags.get("ftlaunch:job") == job_name]
        return sorted(jobs, key=lambda job: job.created)

    def quota(self) -> tuple[dict, str]:
        return self.cloud.quotas.limits, LOW_PRIORITY

    def bytes_sent(self) -> int:
        return self.cloud.storage.received.value + self.cloud.registry.front.received.value

    def close(self) -> None:
        """The subscription ends with the session, and all that is in it."""
