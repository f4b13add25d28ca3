"""The workspace's jobs: the control plane, strict about what it takes. The job itself is `machine_room.Job`."""

import re
import threading
import time

from tests.clouds.azure.answers import Refused
from tests.clouds.azure.machine_room import Job
from tests.clouds.azure.shapes import require

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
CHANGEABLE = ("tags", "properties", "displayName", "description", "isArchived")
"""What a second PUT may change of a job."""


class Jobs:
    """Takes the calls of the service; each gives the answer's content or raises `Refused`."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def put(self, name: str, content: dict) -> dict:
        require("JobBase", content)
        if not NAME.fullmatch(name):
            raise Refused(400, "ValidationError", f"{name} is no name of a job")
        body = content["properties"]
        with self._lock:
            if name in self.jobs:
                kept = self.jobs[name].body
                if any(kept.get(key) != body.get(key) for key in (kept.keys() | body.keys()) - set(CHANGEABLE)):
                    raise Refused(409, "Conflict", f"The job {name} exists already with other properties")
                return self.jobs[name].content()
            self._check(body)
            job = self.jobs[name] = Job(self.cloud, name, body)
        job.start()
        return job.content()

    def get(self, name: str) -> dict:
        return self.job(name).content()

    def list(self) -> dict:
        return {"value": [job.content() for job in sorted(self.jobs.values(), key=lambda job: -job.created)]}

    def cancel(self, name: str) -> None:
        job = self.job(name)
        if job.ended:
            raise Refused(400, "UserError", f"The run {name} is in the terminal state {job.status}")
        job.cancel()

    def job(self, name: str) -> Job:
        if name not in self.jobs:
            raise Refused(404, "UserError", f"Job {name} not found.")
        return self.jobs[name]

    def _check(self, body: dict) -> None:
        """What the service checks beyond its models."""
        if body["jobType"] != "Command":
            raise Refused(400, "ValidationError", "only command jobs are served here")
        used = set(re.findall(r"\$\{\{((?:in|out)puts\.\w+)\}\}", body["command"]))
        there = {f"inputs.{name}" for name in body.get("inputs", {})} | {
            f"outputs.{name}" for name in body.get("outputs", {})
        }
        if used - there:
            raise Refused(400, "ValidationError", f"the command names {sorted(used - there)}, which the job has not")
        for each in [*body.get("inputs", {}).values(), *body.get("outputs", {}).values()]:
            self.cloud.path(each["uri"])
        self.cloud.arm.environment_of(body["environmentId"])
        if body.get("codeId"):
            self.cloud.codes.of(body["codeId"])
        resources = body["resources"]
        if body.get("distribution", {}).get("processCountPerInstance", 1) != 1:
            raise Refused(400, "ValidationError", "machines with several processes are not served here")
        if body.get("computeId"):
            self._check_cluster(body["computeId"], resources)
        else:
            self._check_quota(resources, body.get("queueSettings", {}).get("jobTier") == "Spot")

    def _check_cluster(self, compute: str, resources: dict) -> None:
        cluster = self.cloud.arm.compute(compute.rpartition("/")[2])
        if resources.get("instanceType"):
            raise Refused(400, "ValidationError", "instanceType is of serverless compute, not of a cluster")
        if resources["instanceCount"] > cluster["properties"]["properties"]["scaleSettings"]["maxNodeCount"]:
            message = "The requested node count exceeds the maximum node count of the cluster."
            raise Refused(400, "InvalidNodeCount", message)

    def _check_quota(self, resources: dict, spot: bool) -> None:
        family, cores = self.cloud.quotas.of(resources["instanceType"], spot)
        running = [job for job in self.jobs.values() if not job.ended and job.cores]
        used = sum(job.cores for job in running if job.family == family)
        limit = self.cloud.quotas.limit(family)
        if used + cores * resources["instanceCount"] > limit:
            message = f"The specified subscription has a quota of {limit} cores of {family}, of which {used} are used."
            raise Refused(400, "ClusterCoreQuotaReached", message)

    def close(self) -> None:
        for job in self.jobs.values():
            job.destroy()
        deadline = time.monotonic() + 20
        for job in self.jobs.values():
            job.join(max(0.0, deadline - time.monotonic()))
