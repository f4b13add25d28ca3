"""Vertex AI's custom jobs: the control plane, strict about what it takes. The job itself is `machine_room.Job`."""

import itertools
import re
import threading
import time
from urllib.parse import parse_qs, urlsplit

from google.cloud.aiplatform_v1.types import CustomJob, JobState, Scheduling

from tests.clouds.gateway import Request, Response
from tests.clouds.google.answers import Refused, json_answer, not_found
from tests.clouds.google.machine_room import Job
from tests.clouds.google.shapes import as_json, parsed

LABEL = re.compile(r"[a-z0-9_-]{0,63}")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
ENDED = (JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED)
BUILT_IN = {
    r"g2-standard-(4|8|12|16|32)": ("NVIDIA_L4", {1}),
    r"g2-standard-24": ("NVIDIA_L4", {2}),
    r"g2-standard-48": ("NVIDIA_L4", {4}),
    r"g2-standard-96": ("NVIDIA_L4", {8}),
    r"a2-highgpu-(\d+)g": ("NVIDIA_TESLA_A100", None),
    r"a2-ultragpu-(\d+)g": ("NVIDIA_A100_80GB", None),
    r"a3-highgpu-(\d+)g": ("NVIDIA_H100_80GB", None),
}
"""Accelerators of a machine and how many of them; None: as many as the name says."""


class CustomJobs:
    """Takes the calls of the service."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.jobs: dict[str, Job] = {}
        """By resource name."""
        self._numbers = itertools.count(4606268999515242496)
        self._lock = threading.Lock()
        self.parent = f"projects/{cloud.project}/locations/{cloud.region}"

    def serve(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        name, _, verb = parts.path.removeprefix("/v1/").partition(":")
        if name == f"{self.parent}/customJobs":
            return self._create(request) if request.method == "POST" else self._list(query)
        job = self.jobs.get(name)
        if job is None:
            raise not_found(f"CustomJob {name}")
        if verb == "cancel":
            if job.state in ENDED:
                raise Refused(
                    400, "FAILED_PRECONDITION", f"The job is in state {job.state.name} and cannot be cancelled"
                )
            job.cancel()
            return json_answer({})
        return json_answer(as_json(job.description()))

    def labelled(self, key: str, value: str) -> list[Job]:
        """For tests: the jobs with that label, in the order in which they were made."""
        return [job for job in self.jobs.values() if job.request.labels.get(key) == value]

    def _create(self, request: Request) -> Response:
        message = parsed(CustomJob, request.body)
        self._check(message)
        with self._lock:
            self._check_quota(message)
            number = str(next(self._numbers))
            job = Job(self.cloud, message, f"{self.parent}/customJobs/{number}", request.body)
            self.jobs[job.resource] = job
        job.start()
        return json_answer(as_json(job.description()))

    def _list(self, query: dict[str, str]) -> Response:
        wanted = _filter(query.get("filter", ""))
        found = sorted((job for job in self.jobs.values() if wanted(job)), key=lambda job: -job.created)
        start, size = int(query.get("pageToken") or 0), int(query.get("pageSize") or 10)
        page = [as_json(job.description()) for job in found[start : start + size]]
        more = {"nextPageToken": str(start + size)} if start + size < len(found) else {}
        return json_answer({"customJobs": page, **more})

    def _check(self, job: CustomJob) -> None:
        """What the service checks beyond its types."""
        for key, value in job.labels.items():
            if not LABEL_KEY.fullmatch(key) or not LABEL.fullmatch(value):
                raise _invalid(f"label {key}={value} is not valid")
        spec = job.job_spec
        if len(job.display_name) > 128 or not spec.worker_pool_specs:
            raise _invalid("the display name is too long or there is no worker pool")
        if spec.worker_pool_specs[0].replica_count != 1:
            raise _invalid("worker_pool_specs[0].replica_count must be 1: the primary replica")
        for pool in spec.worker_pool_specs:
            check_machine(pool.machine_spec, spec.scheduling.strategy)
            if pool.disk_spec.boot_disk_size_gb < 100:
                raise _invalid("boot_disk_size_gb must be at least 100")
        if not spec.base_output_directory.output_uri_prefix.startswith("gs://"):
            raise _invalid("base_output_directory must be a Cloud Storage address")
        waits = bool(spec.scheduling.max_wait_duration)
        if waits and spec.scheduling.strategy != Scheduling.Strategy.FLEX_START:
            raise _invalid("max_wait_duration is for FLEX_START only")
        account = spec.service_account
        if account and account not in self.cloud.accounts.acting:
            raise _invalid(f"service account {account} does not exist")

    def _check_quota(self, job: CustomJob) -> None:
        metric, needed = _metric(job)
        used = sum(_metric(each.request)[1] for each in self.jobs.values()
                   if each.state not in ENDED and _metric(each.request)[0] == metric)  # fmt: skip
        if used + needed > self.cloud.services.limit(metric):
            raise Refused(429, "RESOURCE_EXHAUSTED", f"The following quota metrics exceed quota limits: {metric}")

    def close(self) -> None:
        for job in self.jobs.values():
            job.destroy()
        deadline = time.monotonic() + 20
        for job in self.jobs.values():
            job.join(max(0.0, deadline - time.monotonic()))


def check_machine(machine, strategy) -> None:
    """Whether machine and accelerator go together, and can be rented so."""
    name, kind, count = machine.machine_type, machine.accelerator_type.name, machine.accelerator_count
    kind = "" if kind.endswith("UNSPECIFIED") else kind
    for pattern, (accelerator, counts) in BUILT_IN.items():
        if match := re.fullmatch(pattern, name):
            if kind != accelerator or count not in (counts or {int(match[1])}):
                raise _invalid(f'Accelerator "{kind}" x {count} is not supported for machine type "{name}".')
            break
    else:
        if not re.fullmatch(r"[a-z]\w+-[a-z]+-\d+", name):
            raise _invalid(f'Machine type "{name}" is not supported.')
        if kind and not (name.startswith("n1-") and kind == "NVIDIA_TESLA_T4" and count in (1, 2, 4)):
            raise _invalid(f'Accelerator "{kind}" is not supported for machine type "{name}".')
    on_demand = strategy in (Scheduling.Strategy.STANDARD, Scheduling.Strategy.STRATEGY_UNSPECIFIED)
    if on_demand and name in ("a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g"):
        raise _invalid(f"{name} is available with SPOT or FLEX_START only")


def _metric(job: CustomJob) -> tuple[str, int]:
    """The quota that a job counts against, and how much it takes."""
    spec = job.job_spec
    standard = spec.scheduling.strategy.name in ("STANDARD", "STRATEGY_UNSPECIFIED", "ON_DEMAND")
    machine = spec.worker_pool_specs[0].machine_spec
    machines = sum(pool.replica_count for pool in spec.worker_pool_specs)
    if machine.accelerator_count:
        name = machine.accelerator_type.name.lower().removeprefix("nvidia_").removeprefix("tesla_")
        kind, each = f"nvidia_{name.replace('h100_80gb', 'h100')}_gpus", machine.accelerator_count
    else:
        kind, each = "cpus", int(machine.machine_type.rpartition("-")[2])
    return (
        f"aiplatform.googleapis.com/custom_model_training_{'' if standard else 'preemptible_'}{kind}",
        each * machines,
    )


def _filter(text: str):
    """``labels.KEY="VALUE"`` and ``labels.KEY:*``, which is all that is served here of the service's filters."""
    if not text:
        return lambda job: True
    if match := re.fullmatch(r"labels\.(\w+):\*", text):
        return lambda job: match[1] in job.request.labels
    if match := re.fullmatch(r'labels\.(\w+)="([^"]*)"', text):
        return lambda job: job.request.labels.get(match[1]) == match[2]
    raise _invalid(f"filter {text!r} is not served here")


def _invalid(message: str) -> Refused:
    return Refused(400, "INVALID_ARGUMENT", message)
