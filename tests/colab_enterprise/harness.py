"""Colab Enterprise as the conformance suite sees it."""

from dataclasses import replace
from typing import ClassVar

from backends.colab_enterprise import ColabEnterprise
from backends.conformance import Levers
from backends.interface import Backend, Handle
from tests.clouds.google.project import NOTEBOOK_ACCOUNT
from tests.colab_enterprise.conftest import MACHINE
from tests.on_clouds.harness import CloudHarness


class ColabEnterpriseHarness(CloudHarness):
    backend: ClassVar[type[Backend]] = ColabEnterprise
    machine: ClassVar[str] = MACHINE
    long_steps: ClassVar[int] = 400

    def facts(self) -> dict:
        return {"project": self.cloud.project, "service_account": NOTEBOOK_ACCOUNT}

    def jobs(self, job_name: str) -> list:
        """The executions of a job."""
        return self.cloud.notebooks.named(job_name)

    def quota(self) -> tuple[dict, str]:
        return self.cloud.services.limits, "compute.googleapis.com/cpus"

    def bytes_sent(self) -> int:
        return self.cloud.buckets.received.value

    def levers(self) -> Levers:
        """Nothing of what a resume or a spot machine needs."""
        return replace(super().levers(), kill_machine=None, interrupt_spot=None)

    def unknown(self, handle: Handle) -> Handle:
        made = super().unknown(handle)
        name = f"{handle.data['name'].rpartition('/')[0]}/never-was"
        return made.model_copy(update={"data": made.data | {"name": name}})
