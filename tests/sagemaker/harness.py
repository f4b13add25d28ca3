"""SageMaker as the conformance suite sees it."""

import contextlib
from typing import ClassVar

from backends.conformance import Census, Harness, Levers, SmallJob, small_job
from backends.interface import Backend, Handle, Reason, Resources
from backends.sagemaker import SageMaker
from tests.sagemaker.conftest import MACHINE
from tests.tiny_model import MODEL, tasks


class SageMakerHarness(Harness):
    backend: ClassVar[type[Backend]] = SageMaker
    remote: ClassVar[bool] = True
    long_steps: ClassVar[int] = 150
    limit_seconds: ClassVar[int] = 8
    grace_seconds: ClassVar[float] = 90.0

    def __init__(self, folder, cloud, image) -> None:
        super().__init__(folder)
        self.cloud, self.image = cloud, image

    def small_job(self) -> SmallJob:
        train = tasks.write_jsonl(self.folder / "train.jsonl", tasks.colours(60, seed=1))
        resources = Resources(machine=MACHINE, spot=True)
        bucket = f"sagemaker-{self.cloud.region}-{self.cloud.account}"
        options = {"role": self.cloud.role, "account": self.cloud.account, "bucket": bucket}
        return small_job(train, MODEL, image=self.image, resources=resources, options=options)

    def jobs(self, job_name: str):
        """The training jobs of a job, in the order in which they were started."""
        jobs = [job for job in self.cloud.training.jobs.values() if job.tags.get("ftlaunch:job") == job_name]
        return sorted(jobs, key=lambda job: job.created)

    def census(self, job_name: str) -> Census:
        jobs = self.jobs(job_name)
        return Census(started=len(jobs), running=sum(job.running() for job in jobs))

    def bytes_sent(self) -> int:
        return self.cloud.received.value + self.cloud.front.received.value

    def levers(self) -> Levers:
        return Levers(
            kill_machine=lambda handle: self.last(handle).kill(),
            interrupt_spot=lambda handle: self.last(handle).interrupt(),
            throttle=lambda: self.cloud.trouble(throttle=True),
            drop_connection=lambda: self.cloud.trouble(drop=True),
            expire_credentials=lambda: self.cloud.trouble(expired=True),
            make_fail={
                Reason.NO_CAPACITY: lambda: self.cloud.trouble(capacity=True),
                Reason.QUOTA: self.without_quota,
            },
        )

    def last(self, handle: Handle):
        return self.jobs(handle.job_name)[-1]

    @contextlib.contextmanager
    def without_quota(self):
        name = f"{MACHINE} for spot training job usage"
        self.cloud.quotas.values[name] = 0.0
        try:
            yield
        finally:
            del self.cloud.quotas.values[name]
