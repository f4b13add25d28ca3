"""Colab as the conformance suite sees it."""

from typing import ClassVar

from backends.colab import Colab
from backends.conformance import Census, Harness, Levers, SmallJob, small_job
from backends.interface import Backend, Reason
from tests.clouds.colab.account import COMMAND
from tests.tiny_model import MODEL, tasks

OPTIONS = {"command": COMMAND, "auth": "adc"}


class ColabHarness(Harness):
    """A start is one of a supervisor on a machine; what runs is a machine that is still assigned."""

    backend: ClassVar[type[Backend]] = Colab
    remote: ClassVar[bool] = True
    poll_seconds: ClassVar[float] = 0.5
    long_steps: ClassVar[int] = 120
    limit_seconds: ClassVar[int] = 15
    grace_seconds: ClassVar[float] = 120.0

    def __init__(self, folder, cloud) -> None:
        super().__init__(folder)
        self.cloud = cloud

    def small_job(self) -> SmallJob:
        train = tasks.write_jsonl(self.folder / "train.jsonl", tasks.colours(60, seed=1))
        return small_job(train, MODEL, options=OPTIONS)

    def census(self, job_name: str) -> Census:
        told = [(machine, machine.job()) for machine in self.cloud.machines.values()]
        ours = [(machine, job) for machine, job in told if job is not None and job[0] == job_name]
        return Census(started=sum(job[1] for _, job in ours), running=sum(machine.running for machine, _ in ours))

    def bytes_sent(self) -> int:
        return self.cloud.gateway.sent.value

    def levers(self) -> Levers:
        return Levers(
            kill_machine=lambda handle: self.cloud.machine_of(handle.job_name).take_away(),
            throttle=lambda: self.cloud.trouble(throttle=True),
            drop_connection=lambda: self.cloud.trouble(drop=True),
            expire_credentials=lambda: self.cloud.trouble(expired=True),
            make_fail={
                Reason.NO_CAPACITY: lambda: self.cloud.trouble(refused=True),
                Reason.QUOTA: lambda: self.cloud.trouble(no_right=True),
            },
        )
