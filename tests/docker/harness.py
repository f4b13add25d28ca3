"""The docker backend as the conformance suite sees it, on a real engine."""

import threading
from collections import Counter
from typing import ClassVar

from backends.conformance import Census, Harness, Levers, SmallJob, small_job
from backends.docker import Docker
from backends.docker_engine import LABEL
from backends.docker_request import container_name
from backends.interface import Backend, Handle
from tests.tiny_model import MODEL, tasks

SIZES = ["find", "/volumes", "-type", "f", "-path", "*-data/*", "-printf", "%i %C@ %s\\n"]


class DockerHarness(Harness):
    """Starts are counted by the engine's own events; what was sent, by the files that ever lay in the data volumes."""

    backend: ClassVar[type[Backend]] = Docker
    remote: ClassVar[bool] = False
    limit_seconds: ClassVar[int] = 4  # before the first step: the container's own limit has to stop it
    long_steps: ClassVar[int] = 200

    def __init__(self, folder, client, image) -> None:
        super().__init__(folder)
        self.client, self.image = client, image
        self.starts: Counter[str] = Counter()
        self.seen: dict[tuple[str, str], int] = {}
        self.events = client.events(decode=True, filters={"type": "container", "event": "start", "label": LABEL})
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        for event in self.events:
            self.starts[event["Actor"]["Attributes"][LABEL]] += 1

    def small_job(self) -> SmallJob:
        train = tasks.write_jsonl(self.folder / "train.jsonl", tasks.colours(60, seed=1))
        return small_job(train, MODEL, image=self.image)

    def census(self, job_name: str) -> Census:
        labelled = self.client.containers.list(filters={"label": f"{LABEL}={job_name}"})
        return Census(started=self.starts[job_name], running=len(labelled))

    def bytes_sent(self) -> int:
        """A file written anew has another inode or time of change."""
        volumes = self.client.volumes.list(filters={"label": LABEL})
        mounts = {each.name: {"bind": f"/volumes/{each.name}", "mode": "ro"} for each in volumes}
        if mounts:
            told = self.client.containers.run(
                self.image, SIZES[1:], entrypoint=SIZES[:1], volumes=mounts, remove=True, network_mode="none"
            )
            for line in told.decode().splitlines():
                inode, changed, size = line.split()
                self.seen[inode, changed] = int(size)
        return sum(self.seen.values())

    def levers(self) -> Levers:
        return Levers(kill_machine=self.kill)

    def kill(self, handle: Handle) -> None:
        self.client.containers.get(container_name(handle.job_name)).kill()

    def close(self) -> None:
        super().close()
        for name in self.runs.started:  # what was staged and never submitted, too
            Docker.create().remove(Handle(backend="docker", job_name=name))
        self.events.close()
