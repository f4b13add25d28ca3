"""A loopback cloud as the conformance suite sees it."""

import contextlib
from abc import abstractmethod
from typing import ClassVar

from backends.conformance import Census, Harness, Levers, SmallJob, small_job
from backends.interface import Handle, Reason, Resources
from tests.tiny_model import MODEL, tasks


class CloudHarness(Harness):
    """A start is one of the service's own jobs; each of them has machines of its own."""

    remote: ClassVar[bool] = True
    limit_seconds: ClassVar[int] = 8
    grace_seconds: ClassVar[float] = 90.0
    machine: ClassVar[str]

    def __init__(self, folder, cloud, image=None) -> None:
        """``image``: the training image, for a service that starts it."""
        super().__init__(folder)
        self.cloud, self.image = cloud, image

    @abstractmethod
    def facts(self) -> dict:
        """The options that name the account, and who the job acts as."""

    @abstractmethod
    def jobs(self, job_name: str) -> list:
        """The service's jobs of a job, in the order in which they were started."""

    @abstractmethod
    def quota(self) -> tuple[dict, str]:
        """The account's limits, and the name of the one that the small job counts against."""

    def small_job(self) -> SmallJob:
        """On spot machines, where there are any."""
        train = tasks.write_jsonl(self.folder / "train.jsonl", tasks.colours(60, seed=1))
        resources = Resources(machine=self.machine, spot=self.backend.capabilities.spot)
        return small_job(train, MODEL, image=self.image, resources=resources, options=self.facts())

    def census(self, job_name: str) -> Census:
        jobs = self.jobs(job_name)
        return Census(started=len(jobs), running=sum(job.running() for job in jobs))

    def levers(self) -> Levers:
        return Levers(
            kill_machine=lambda handle: self.last(handle).kill(),
            interrupt_spot=lambda handle: self.last(handle).preempt(),
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
        limits, name = self.quota()
        limits[name] = 0
        try:
            yield
        finally:
            del limits[name]
