"""Vertex AI: a custom job; image in Artifact Registry, data and results in Cloud Storage, logs in Cloud Logging.

A custom job has no name of our choosing, so each carries the job's name as a label. Who submits asks by that label
first, and takes a claim in the bucket, which only one launcher gets. A resume is another custom job with the same
folder (label ``ftlaunch_run``). Nothing of Google's libraries is imported before a method needs it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import SecretStr

from backends import (
    google_logs,
    google_machines,
    google_registry,
    google_secrets,
    vertex_checks,
    vertex_request,
)
from backends.cloud import Cloud
from backends.google_calls import SECONDS, Account, GoogleError, ask, call, call_once, with_project
from backends.google_places import in_every_place
from backends.google_request import JOB_LABEL, bucket_of, label
from backends.google_storage import Store, make_bucket, split_uri
from backends.interface import (
    BackendError,
    BackendOptions,
    ContainerRequest,
    Cursor,
    Finding,
    Handle,
    Json,
    LogLine,
    Plan,
    Resources,
    Status,
    Submission,
)
from backends.vertex_request import RUN_LABEL, VertexOptions
from backends.vertex_status import of_custom_job

CLAIM = "claim"
CLAIM_SECONDS = 30.0
"""How long another launcher's claim is respected while no job of it appears: it was killed before its create call."""
LOST_SECONDS = 10.0
"""How long a job is looked for by its label after a create call whose answer was lost."""
REMOVED = "removed"
RESULTS = "model"
"""Below the output directory: what Vertex AI calls AIP_MODEL_DIR."""
CHECKPOINTS = "checkpoints"


class Vertex(Cloud[Account, Any]):
    """Trains on Vertex AI."""

    name: ClassVar[str] = vertex_request.NAME
    service: ClassVar[str] = "Vertex AI"
    options: ClassVar[type[BackendOptions]] = VertexOptions
    summary: ClassVar[str] = "Vertex AI custom jobs on Google Cloud: on demand, spot or flex-start"
    extra: ClassVar[str] = "gcp"

    def plan(self, submission: Submission) -> Plan:
        """The CustomJob, exactly as it is sent, with what else the submit needs beside it."""
        return vertex_request.make_plan(submission)

    def torch(self, resources: Resources) -> Literal["cpu", "cuda"]:
        """By the machine: the ones with an accelerator have NVIDIA GPUs."""
        return "cuda" if google_machines.machine_for(resources).accelerator else "cpu"

    def container(self, plan: Plan) -> ContainerRequest:
        """The part of the request that the first container sees."""
        return vertex_request.container(plan)

    def resolve(self, plan: Plan) -> Plan:
        """Fill the project from the credentials."""
        return with_project(plan, vertex_request.unresolved)

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look at credentials, APIs, bucket, image, service account and quota."""
        return vertex_checks.findings(self._account(plan.request), plan)

    def lacks_image(self, plan: Plan) -> bool:
        """Ask Artifact Registry, where the request names the job's own image."""
        uri = _image(plan.request["customJob"])
        own = vertex_request.is_own_image(uri, plan.image)
        return own and google_registry.digest(self._account(plan.request), uri) is None

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Send data to Cloud Storage by content, spec.json beside it, and the image to Artifact Registry."""
        account, job = self._account(plan.request), plan.request["customJob"]
        place = _place(job)
        bucket, _ = split_uri(place)
        if bucket == bucket_of(account.project, account.region):
            make_bucket(account, bucket)
        variables = vertex_request.environment(job)
        data = Store(account, variables["FTLAUNCH_DATA"].replace("/gcs/", "gs://", 1))
        data.send_files(f"{data.prefix.rpartition('/data/')[0]}/files", plan.inputs, files)
        Store(account, f"{place}/spec").send_text("spec.json", plan.spec.model_dump_json(by_alias=True, indent=1))
        google_registry.send(account, plan.image, _image(job))

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Put the secrets into Secret Manager and create the custom job; one with that label is given as it is."""
        account, job = self._to_submit(plan), plan.request["customJob"]
        store = Store(account, _place(job))
        if not self._claimed(account, store, plan.job_name):
            return self._of_runs(account, plan.job_name, self._runs(account, plan.job_name))
        try:
            if secrets:
                reader, labels = job["jobSpec"]["serviceAccount"], {JOB_LABEL: label(plan.job_name)}
                google_secrets.put(account, plan.job_name, secrets, reader, labels)
            _create(account, job)
        except BackendError as error:
            # Where the answer was lost the job may be started all the same.
            refused = isinstance(error, GoogleError) and error.code < 500
            if not self._appears(account, plan.job_name, 0.0 if refused else LOST_SECONDS):
                google_secrets.delete(account, vertex_request.environment(job))
                store.remove(CLAIM)
                raise
        return self._of_runs(account, plan.job_name, self._without_doubles(account, plan.job_name))

    def known(self) -> Iterable[Handle]:
        """The custom jobs that carry our label, in the credentials' project and the default region and wherever jobs
        were submitted from here. A double of a run, which two launchers started at once in spite of the claim, is
        stopped here."""
        return in_every_place(self.name, VertexOptions().region, self._known)

    def _known(self, account: Account) -> Iterator[Handle]:
        names = [str(job.display_name) for job in _listed(account, f"labels.{JOB_LABEL}:*")]
        for name in dict.fromkeys(names):
            yield self._of_runs(account, name, self._without_doubles(account, name))

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The lines in Cloud Logging of all machines, in all lives."""
        account, names = self._of_handle(handle)
        if after is None:
            self._existing(account, names[-1])
        identifiers = " OR ".join(f'"{name.rpartition("/")[2]}"' for name in names)
        query = f'resource.type="ml_job" AND resource.labels.job_id=({identifiers})'
        yield from google_logs.lines(account, query, "task_name", after)

    def _account(self, place: Json) -> Account:
        return Account(str(place["project"]), str(place["region"]))

    def _place(self, account: Account) -> Json:
        return {"project": account.project, "region": account.region}

    def _default(self) -> Account:
        return Account(None, VertexOptions().region)

    def _get(self, account: Account, name: str) -> Any:
        try:
            return ask(account.jobs.get_custom_job, name=name, timeout=SECONDS)
        except GoogleError as error:
            if error.code in (400, 404):
                return None
            raise

    def _runs(self, account: Account, job_name: str) -> list[Any]:
        """One custom job a run; a double is left out."""
        runs: dict[int, Any] = {}
        for job in _of_job(account, job_name):
            runs.setdefault(int(job.labels[RUN_LABEL]), job)
        return [runs[number] for number in sorted(runs)]

    def _name(self, run: Any) -> str:
        return str(run.name)

    def _told(self, account: Account, run: Any) -> Status:
        return of_custom_job(run)

    def _image(self, account: Account, run: Any) -> str:
        return str(run.job_spec.worker_pool_specs[0].container_spec.image_uri)

    def _digest(self, account: Account, image: str) -> str | None:
        return google_registry.digest(account, image)

    def _stop(self, account: Account, run: Any) -> None:
        """CancelCustomJob, which is done as well as the service can."""
        try:
            call(account.jobs.cancel_custom_job, name=run.name, timeout=SECONDS)
        except GoogleError as error:
            if error.code != 400:  # it ended in this moment
                raise

    def _was_removed(self, account: Account, run: Any) -> bool:
        return _store(account, run).has(REMOVED)

    def _go_on(self, account: Account, job_name: str, runs: list[Any]) -> list[Any]:
        _create(account, _next(runs[-1], len(runs)))
        return self._without_doubles(account, job_name)

    def _bring(self, account: Account, run: Any, into: Path) -> None:
        _store(account, run, RESULTS).fetch(into)

    def _free(self, account: Account, run: Any) -> None:
        variables = {each.name: each.value for each in run.job_spec.worker_pool_specs[0].container_spec.env}
        _store(account, run).create(REMOVED)
        google_secrets.delete(account, variables)
        _store(account, run, CHECKPOINTS).delete()

    def _without_doubles(self, account: Account, job_name: str) -> list[Any]:
        """The runs, after every live double of them was stopped: of two launchers both find the same one to keep."""
        runs = self._runs(account, job_name)
        kept = {run.name for run in runs}
        for job in _of_job(account, job_name):
            if job.name not in kept and not of_custom_job(job).state.ended:
                self._stop(account, job)
        return runs

    def _claimed(self, account: Account, store: Store, job_name: str) -> bool:
        """Whether this launcher is to create the job; False once it is there."""
        deadline = time.monotonic() + CLAIM_SECONDS
        while not self._runs(account, job_name):
            if store.create(CLAIM):
                return not self._runs(account, job_name)  # one may have come between the question and the claim
            if time.monotonic() > deadline:
                store.remove(CLAIM)
                deadline += CLAIM_SECONDS
            time.sleep(0.5)
        return False

    def _appears(self, account: Account, job_name: str, seconds: float) -> bool:
        """Whether there is a job, asked for so long."""
        deadline = time.monotonic() + seconds
        while not (found := bool(self._runs(account, job_name))) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found


def _place(job: Json) -> str:
    return str(job["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"])


def _store(account: Account, run: Any, folder: str = "") -> Store:
    """The folder of a custom job, or one below it."""
    place = run.job_spec.base_output_directory.output_uri_prefix
    return Store(account, f"{place}/{folder}" if folder else place)


def _image(job: Json) -> str:
    return str(job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["imageUri"])


def _listed(account: Account, query: str) -> list[Any]:
    """The region's custom jobs that a filter finds, from the first to the last."""
    parent = f"projects/{account.project}/locations/{account.region}"
    found = ask(lambda: list(account.jobs.list_custom_jobs(request={"parent": parent, "filter": query})))
    return sorted(found, key=lambda job: (job.create_time, job.name))


def _of_job(account: Account, job_name: str) -> list[Any]:
    """The custom jobs of a job, doubles included."""
    found = _listed(account, f'labels.{JOB_LABEL}="{label(job_name)}"')
    return [job for job in found if job.display_name == job_name]


def _create(account: Account, job: Json) -> None:
    from google.cloud.aiplatform_v1.types import CustomJob

    parent = f"projects/{account.project}/locations/{account.region}"
    request = {"parent": parent, "custom_job": CustomJob.from_json(json.dumps(job))}
    call_once(account.jobs.create_custom_job, request=request, timeout=SECONDS)


def _next(job: Any, run: int) -> Json:
    """The request of the next run, from what the service tells of the one before."""
    told: Json = json.loads(type(job).to_json(job, always_print_fields_with_no_presence=False))
    kept: Json = {key: told[key] for key in ("displayName", "jobSpec", "labels", "encryptionSpec") if key in told}
    kept["labels"][RUN_LABEL] = str(run)
    return kept
