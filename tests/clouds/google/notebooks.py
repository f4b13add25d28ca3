"""Colab Enterprise's notebook executions: the control plane, strict about what it takes, and the execution itself.

The notebook is pulled from the bucket by the rights of the job's service account and really executed: by nbclient, in a
container that is like a runtime (`runtime.py`). The executed notebook lands below the output address, under the
execution's id and the notebook's own name, as it was seen at the real service; that is not documented.
"""

import json
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from google.cloud.aiplatform_v1.types import (
    JobState,
    MachineSpec,
    NotebookExecutionJob,
    NotebookRuntimeTemplate,
    Scheduling,
)
from google.rpc import status_pb2

from tests.clouds.containers import Machine
from tests.clouds.gateway import Request, Response
from tests.clouds.google.answers import Refused, json_answer, not_found
from tests.clouds.google.custom_jobs import ENDED, LABEL, LABEL_KEY, check_machine
from tests.clouds.google.machine_room import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    STOCKOUT,
    Failed,
    _moment,
    machine_environment,
)
from tests.clouds.google.shapes import as_json, parsed
from training_image.contracts import COLAB_ENTERPRISE

IDENTIFIER = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
URI = re.compile(r"gs://([a-z0-9][a-z0-9._-]+[a-z0-9])/(.+)")
ONE_OF = {
    "notebook source": ("dataform_repository_source", "gcs_notebook_source", "direct_notebook_source"),
    "environment": ("notebook_runtime_template_resource_name", "custom_environment_spec"),
    "output": ("gcs_output_uri",),
    "identity": ("execution_user", "service_account"),
}
TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."
PERMISSION_DENIED = 7
PULL = "storage.objects.get"


class Notebooks:
    """Takes the calls of the service."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.jobs: dict[str, Execution] = {}
        """By resource name."""
        self.templates: dict[str, NotebookRuntimeTemplate] = {}
        """By resource name; a test puts them there."""
        self.cancellable = True
        """Whether the operation that makes an execution can be cancelled, which is not documented."""
        self._lock = threading.Lock()
        self.parent = f"projects/{cloud.project}/locations/{cloud.region}"

    def serve(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        name, _, verb = parts.path.removeprefix("/v1/").partition(":")
        if name == f"{self.parent}/notebookExecutionJobs":
            return self._create(request, query) if request.method == "POST" else self._list(query)
        if "/notebookRuntimeTemplates/" in name:
            if name not in self.templates:
                raise not_found(name)
            return json_answer(as_json(self.templates[name]))
        resource, _, operation = name.partition("/operations")
        job = self.jobs.get(resource)
        if job is None:
            raise not_found(f"NotebookExecutionJob {resource}")
        if not operation and resource == name:
            return json_answer(as_json(job.description()))
        if verb == "cancel":
            if not self.cancellable:
                raise Refused(501, "UNIMPLEMENTED", "Operation is not implemented, or supported, or enabled.")
            job.cancel()
            return json_answer({})
        return json_answer({"operations": [job.operation()]})

    def named(self, job_name: str) -> "list[Execution]":
        """For tests: the executions of that display name."""
        return [job for job in self.jobs.values() if job.request.display_name == job_name]

    def _create(self, request: Request, query: dict[str, str]) -> Response:
        message = parsed(NotebookExecutionJob, request.body)
        identifier = query.get("notebookExecutionJobId", "")
        self.check(message, identifier)
        with self._lock:
            resource = f"{self.parent}/notebookExecutionJobs/{identifier}"
            if resource in self.jobs:
                raise Refused(409, "ALREADY_EXISTS", f"NotebookExecutionJob {resource} already exists.")
            job = self.jobs[resource] = Execution(self.cloud, message, resource, request.body)
        job.start()
        return json_answer(job.operation())

    def _list(self, query: dict[str, str]) -> Response:
        if query.get("filter"):
            raise _invalid(f"filter {query['filter']!r} is not served here")
        found = sorted(self.jobs.values(), key=lambda job: -job.created)
        start, size = int(query.get("pageToken") or 0), int(query.get("pageSize") or 10)
        page = [as_json(job.description()) for job in found[start : start + size]]
        more = {"nextPageToken": str(start + size)} if start + size < len(found) else {}
        return json_answer({"notebookExecutionJobs": page, **more})

    def check(self, job: NotebookExecutionJob, identifier: str) -> None:
        """What the service checks beyond its types, which call nothing of this message required."""
        if not IDENTIFIER.fullmatch(identifier):
            raise _invalid(f"notebook_execution_job_id {identifier!r} is not valid")
        if not job.display_name or len(job.display_name) > 128:
            raise _invalid("display_name must have 1 to 128 characters")
        for key, value in job.labels.items():
            if not LABEL_KEY.fullmatch(key) or not LABEL.fullmatch(value):
                raise _invalid(f"label {key}={value} is not valid")
        for what, names in ONE_OF.items():
            if sum(NotebookExecutionJob.pb(job).HasField(name) for name in names) != 1:
                raise _invalid(f"exactly one {what} is required: {', '.join(names)}")
        if not URI.fullmatch(job.gcs_notebook_source.uri) or not URI.fullmatch(job.gcs_output_uri):
            raise _invalid("notebook and output must be Cloud Storage addresses")
        if job.service_account not in self.cloud.accounts.acting:
            raise _invalid(f"service account {job.service_account} does not exist")
        if job.execution_timeout and job.execution_timeout.total_seconds() <= 0:
            raise _invalid("execution_timeout must be positive")
        self._check_environment(job)

    def _check_environment(self, job: NotebookExecutionJob) -> None:
        template = job.notebook_runtime_template_resource_name
        if template:
            if template not in self.templates:
                raise not_found(template)
            return
        environment = job.custom_environment_spec
        check_machine(environment.machine_spec, Scheduling.Strategy.STANDARD)
        if environment.persistent_disk_spec.disk_size_gb < 10:
            raise _invalid("disk_size_gb must be at least 10")

    def close(self) -> None:
        for job in self.jobs.values():
            job.destroy()
        deadline = time.monotonic() + 20
        for job in self.jobs.values():
            job.join(max(0.0, deadline - time.monotonic()))


class Execution(threading.Thread):
    """One notebook, really executed."""

    def __init__(self, cloud, request: NotebookExecutionJob, resource: str, body: bytes) -> None:
        super().__init__(name=request.display_name, daemon=True)
        self.cloud, self.request, self.resource = cloud, request, resource
        self.body = json.loads(body)
        """The request as it came."""
        self.created = self.changed = time.time()
        self.state = JobState.JOB_STATE_PENDING
        self.error: tuple[int, str] | None = None
        self.machine: Machine | None = None
        self.machine_spec: MachineSpec = self._machine_spec()
        self._event = threading.Event()
        self._cancelled = self._lost = self._destroyed = False

    def running(self) -> bool:
        return self.machine is not None and self.machine.running()

    # what a test may do to it

    def kill(self) -> None:
        """The runtime dies."""
        self._lost = True
        self.machine.signal("SIGKILL")

    def cancel(self) -> None:
        self._cancelled = True
        if self.state not in ENDED:
            self.state = JobState.JOB_STATE_CANCELLING
        self._event.set()

    def destroy(self) -> None:
        """The session ends."""
        self._destroyed = True
        self._event.set()
        if self.machine is not None:
            self.machine.signal("SIGKILL")

    # the life of it

    def run(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ftlaunch-runtime-"))
        try:
            self._live(folder)
        except Failed as failure:
            self._finish(JobState.JOB_STATE_FAILED, failure.code, str(failure))
        except Exception as error:  # a fault of this harness must not look like the service's answer
            self._finish(JobState.JOB_STATE_FAILED, INTERNAL, f"the loopback cloud itself: {error!r}")
            if not self._destroyed:
                raise
        finally:
            if self.machine is not None:
                self.machine.remove()
            shutil.rmtree(folder, ignore_errors=True)

    def _live(self, folder: Path) -> None:
        if self.cloud.troubles.capacity:
            raise Failed(RESOURCE_EXHAUSTED, STOCKOUT.format(region=self.cloud.region))
        self._take_quota()
        self._event.wait(self.cloud.starting_seconds)
        if self._cancelled or self._destroyed:
            return self._finish(JobState.JOB_STATE_CANCELLED, CANCELLED, "The execution was cancelled.")
        notebook = folder / "notebook.ipynb"
        notebook.write_bytes(self._pulled())
        self.machine = Machine(
            self.cloud.engine,
            self.cloud.network,
            self.cloud.runtime_image,
            [],
            name="runtime",
            environment=self._environment(),
            mounts={
                "/run/service": (folder, "rw"),
                "/run/loopback/authority.pem": (self.cloud.authority.file, "ro"),
            },
            line=lambda _, line: self.cloud.logs.write(self.resource.rpartition("/")[2], "runtime", line),
        )
        self.machine.start()
        self.state, self.changed = JobState.JOB_STATE_RUNNING, time.time()
        ending = self._watch()
        if ending == "cancelled":
            return self._finish(JobState.JOB_STATE_CANCELLED, CANCELLED, "The execution was cancelled.")
        if ending == "timeout":
            raise Failed(DEADLINE_EXCEEDED, "The execution timed out: it ran longer than execution_timeout.")
        if ending == "lost":
            raise Failed(INTERNAL, "Internal error: the runtime is not reachable any more.")
        self._leave(notebook)
        if ending == "failed":
            raise Failed(INVALID_ARGUMENT, f"Notebook execution failed: {_said(notebook)}")
        return self._finish(JobState.JOB_STATE_SUCCEEDED)

    def _take_quota(self) -> None:
        """Runtimes take the quotas of Compute Engine, and the execution fails where one is used up."""
        kind = self.machine_spec.accelerator_type.name.lower().removeprefix("nvidia_").removeprefix("tesla_")
        gpus = self.machine_spec.accelerator_count
        metric = f"nvidia_{kind}_gpus" if gpus else "cpus"
        needed = gpus or int(self.machine_spec.machine_type.rpartition("-")[2])
        limit = self.cloud.services.limit(f"compute.googleapis.com/{metric}")
        if needed > limit:
            message = f"Quota '{metric.upper()}' exceeded.  Limit: {limit:.1f} in region {self.cloud.region}."
            raise Failed(RESOURCE_EXHAUSTED, message)

    def _machine_spec(self) -> MachineSpec:
        template = self.request.notebook_runtime_template_resource_name
        if template:
            return self.cloud.notebooks.templates[template].machine_spec
        return self.request.custom_environment_spec.machine_spec

    def _pulled(self) -> bytes:
        """The notebook, read by the service account's rights."""
        uri = self.request.gcs_notebook_source.uri
        bucket, name = URI.fullmatch(uri).groups()
        if not self.cloud.accounts.may(self.request.service_account, PULL):
            raise Failed(PERMISSION_DENIED, f"{self.request.service_account} does not have {PULL} access to {uri}")
        self.cloud.used.add((self.request.service_account, PULL))
        return self.cloud.buckets.contents(bucket)[name]

    def _environment(self) -> dict[str, str]:
        return {
            **machine_environment(self.cloud, self.request.service_account),
            **COLAB_ENTERPRISE.environment,
            "GOOGLE_CLOUD_PROJECT": self.cloud.project,
        }

    def _watch(self) -> str:
        """How the execution ended."""
        began = time.monotonic()
        limit = self.request.execution_timeout
        while True:
            code = self.machine.wait(0)
            if code is not None:
                return "lost" if self._lost or code == 137 else "failed" if code else "done"
            asked = "cancelled" if self._cancelled or self._destroyed else None
            if limit and time.monotonic() - began >= limit.total_seconds():
                asked = "timeout"
            if asked:
                self.machine.signal("SIGKILL")
                self.machine.wait(30)
                return asked
            self._event.wait(0.1)

    def _leave(self, notebook: Path) -> None:
        """The executed notebook, below the output address."""
        bucket, prefix = URI.fullmatch(self.request.gcs_output_uri).groups()
        identifier, name = self.resource.rpartition("/")[2], self.request.gcs_notebook_source.uri.rpartition("/")[2]
        folder = self.cloud.buckets.folder / bucket / prefix / identifier
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(notebook, folder / name)
        self.cloud.buckets.sync()

    def _finish(self, state: JobState, code: int = 0, message: str = "") -> None:
        self.error = (code, message) if code else None
        self.changed = time.time()
        self.state = state  # last: who sees the end sees all of it

    def operation(self) -> dict:
        """The long-running operation that makes it."""
        told = {
            "name": f"{self.resource}/operations/1",
            "metadata": {"@type": f"{TYPE}CreateNotebookExecutionJobOperationMetadata"},
        }
        if self.state not in ENDED:
            return told
        if self.error:
            return told | {"done": True, "error": {"code": self.error[0], "message": self.error[1]}}
        return told | {"done": True, "response": {"@type": f"{TYPE}NotebookExecutionJob"} | as_json(self.description())}

    def description(self) -> NotebookExecutionJob:
        """GetNotebookExecutionJob."""
        told = NotebookExecutionJob(self.request)
        told.name, told.job_state = self.resource, self.state
        told.create_time, told.update_time = _moment(self.created), _moment(self.changed)
        if self.error:
            told.status = status_pb2.Status(code=self.error[0], message=self.error[1])
        return told


def _said(notebook: Path) -> str:
    """The error that a cell ended with."""
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                return f"{output['ename']}: {output['evalue']}"
    return "unknown"


def _invalid(message: str) -> Refused:
    return Refused(400, "INVALID_ARGUMENT", message)
