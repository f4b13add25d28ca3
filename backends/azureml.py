"""Azure Machine Learning: a command job with the image in a container registry, data and results in blobs.

A resume is another job with the same checkpoints (``JOB-r1``). A job on low-priority machines that are taken away is
queued again by Azure ML itself. Nothing of Azure's SDKs is imported before a method needs it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from backends import (
    azure_logs,
    azure_machines,
    azure_registry,
    azureml_checks,
    azureml_command,
    azureml_known,
    azureml_request,
    azureml_secrets,
    azureml_status,
)
from backends.azure_calls import ARM, Account, AzureError, Workspace, translated
from backends.azure_storage import Store, path_in_datastore
from backends.azureml_request import JOB_TAG, AzureMLOptions
from backends.cloud import Cloud
from backends.cloud_request import run_name, runs_by_name
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

REMOVED_TAG = "ftlaunch:removed"
API = "2024-10-01"
"""Version of the workspace's REST interface, where the SDK gives less than the service."""


class AzureML(Cloud[Account, Any]):
    """Trains on Azure Machine Learning."""

    name: ClassVar[str] = azureml_request.NAME
    service: ClassVar[str] = "Azure ML"
    options: ClassVar[type[BackendOptions]] = AzureMLOptions
    summary: ClassVar[str] = "Azure Machine Learning command jobs, on a compute cluster or serverless, spot or not"
    extra: ClassVar[str] = "azure"

    def plan(self, submission: Submission) -> Plan:
        """The JobBase body, exactly as it is sent, with what else the submit needs beside it."""
        return azureml_request.make_plan(submission)

    def torch(self, resources: Resources) -> Literal["cpu", "cuda"]:
        """By the machine's family: N has GPUs. A cluster that is named alone is taken to have them."""
        return "cuda" if azure_machines.has_gpu(azure_machines.machine_for(resources)) else "cpu"

    def container(self, plan: Plan) -> ContainerRequest:
        """The part of the body that the container sees."""
        return azureml_request.container(plan)

    def resolve(self, plan: Plan) -> Plan:
        """Fill in the only subscription and workspace, and the workspace's own registry and key vault."""
        missing = {each.path.rpartition(".")[2] for each in plan.unresolved} - {"image"}
        if not missing:
            return plan
        request = azureml_request.filled(plan.request, azureml_known.facts(plan.request, missing))
        return plan.model_copy(update={"request": request, "unresolved": azureml_request.unresolved(request)})

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look at credentials, workspace, datastore, compute or quota, image and key vault."""
        return azureml_checks.findings(self._account(plan.request), plan)

    def machine(self, plan: Plan) -> str | None:
        """A cluster's owner chose its machines."""
        compute = plan.request["JobBase"]["properties"].get("computeId")
        if plan.machine is not None or compute is None:
            return plan.machine
        with translated():
            size = str(self._account(plan.request).ml.compute.get(compute.rpartition("/")[2]).size)
        return azure_machines.as_listed(size)

    def lacks_image(self, plan: Plan) -> bool:
        """Ask the registry, where the request names the job's own image."""
        uri = str(plan.request["Environment"]["image"])
        if not azureml_request.is_own_image(uri, plan.image):
            return False
        return azure_registry.digest(self._account(plan.request), uri) is None

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Send data to the datastore by content, spec.json beside it, the image to its registry."""
        account = self._account(plan.request)
        inputs: Json = plan.request["JobBase"]["properties"]["inputs"]
        data = _store(account, inputs["data"]["uri"])
        data.send_files(f"{data.prefix.rpartition('/data/')[0]}/files", plan.inputs, files)
        _store(account, inputs["spec"]["uri"]).send_text(
            "spec.json", plan.spec.model_dump_json(by_alias=True, indent=1)
        )
        azure_registry.send(account, plan.image, plan.request["Environment"]["image"])
        azureml_command.make_environment(account, plan.request["Environment"])

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Put the secrets into the key vault and create the job; one of that name is given as it is."""
        account, properties = self._to_submit(plan), plan.request["JobBase"]["properties"]
        if self._get(account, plan.job_name) is None:
            azureml_secrets.put(account, plan.job_name, properties, secrets)
            try:
                azureml_command.create(account, plan.request["JobBase"])
            except BackendError:
                if self._get(account, plan.job_name) is None:  # it may be there, and only the answer was lost
                    azureml_secrets.delete(account, properties)
                    raise
        return self._handle(account, plan.job_name, [plan.job_name], plan.request["Environment"]["image"])

    def known(self) -> Iterable[Handle]:
        """Jobs that carry our tag, in all workspaces that jobs were started in from this machine."""
        noted = (self._noted(path.stem) for path in sorted(self._notes.glob("*.json")))
        for account in {each.workspace: each for each in noted if each is not None}.values():
            with translated():
                jobs = list(account.ml.jobs.list())
            tagged = ((job.tags[JOB_TAG], job) for job in jobs if job is not None and JOB_TAG in (job.tags or {}))
            yield from self._of_listed(account, tagged, lambda run: run.creation_context.created_at)

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The lines in the log files of all machines, in all starts."""
        account, names = self._of_handle(handle)
        files: dict[str, Json] = {}
        ended = True
        for name in names:
            details = _history(account, self._existing(account, name), "/details")
            files[name] = details.get("logFiles") or {}
            ended = azureml_status.state(details.get("status", "")).ended
        yield from azure_logs.lines(files, ended, after)

    def _account(self, place: Json) -> Account:
        return Account(Workspace(place["subscription"], place["resource_group"], place["workspace"]))

    def _place(self, account: Account) -> Json:
        subscription, resource_group, workspace = account.workspace
        return {"subscription": subscription, "resource_group": resource_group, "workspace": workspace}

    def _get(self, account: Account, name: str) -> Any:
        """azure-ai-ml's job of that name."""
        try:
            with translated():
                return account.ml.jobs.get(name)
        except AzureError as error:
            if error.status == 404:
                return None
            raise

    def _runs(self, account: Account, job_name: str) -> list[Any]:
        return runs_by_name(functools.partial(self._get, account), job_name)

    def _name(self, run: Any) -> str:
        return str(run.name)

    def _told(self, account: Account, run: Any) -> Status:
        # The SDK gives a member of its enum, or a text that its enum lacks.
        native = str(run.status) if type(run.status) is str else str(run.status.value)
        limit = run.limits.timeout if run.limits is not None else None
        return azureml_status.status(native, _history(account, run), run.resources.instance_count, limit)

    def _image(self, account: Account, run: Any) -> str:
        """The image of its environment, which the SDK's job does not name."""
        environment = account.get(f"{ARM}{_body(account, run)['environmentId']}", **{"api-version": API})
        return str(environment["properties"]["image"])

    def _digest(self, account: Account, image: str) -> str | None:
        return azure_registry.digest(account, image)

    def _stop(self, account: Account, run: Any) -> None:
        try:
            with translated():
                account.ml.jobs.begin_cancel(run.name, polling=False)
        except AzureError as error:
            if error.status not in (400, 409):  # it ended in this moment
                raise

    def _was_removed(self, account: Account, run: Any) -> bool:
        return REMOVED_TAG in run.tags

    def _go_on(self, account: Account, job_name: str, runs: list[Any]) -> list[Any]:
        name = run_name(job_name, len(runs))
        azureml_command.create(account, {"name": name, "properties": _body(account, runs[-1])})
        return self._runs(account, job_name)

    def _bring(self, account: Account, run: Any, into: Path) -> None:
        _store(account, run.outputs["output"].path).fetch(into)

    def _free(self, account: Account, run: Any) -> None:
        with translated():
            account.ml.jobs.update(run.name, tags={**run.tags, REMOVED_TAG: "true"})
        azureml_secrets.delete(account, {"environmentVariables": run.environment_variables or {}})
        _store(account, run.outputs["checkpoints"].path).delete()


def _body(account: Account, run: Any) -> Json:
    """The properties of a job, as its body has them."""
    body: Json = account.get(f"{ARM}{account.workspace.id}/jobs/{run.name}", **{"api-version": API})["properties"]
    return body


def _history(account: Account, run: Any, part: str = "") -> Json:
    """What the run history knows of a job, which is more than the job tells; empty where it knows nothing yet."""
    tracking = (run.services or {}).get("Tracking")
    if tracking is None:
        return {}
    host = urlsplit(tracking.endpoint).netloc
    place = f"https://{host}/history/v1.0{account.workspace.id}/experiments/{run.experiment_name}/runs/{run.name}"
    try:
        return account.get(f"{place}{part}", scope="https://ml.azure.com/.default")
    except AzureError as error:
        if error.status == 404:
            return {}
        raise


def _store(account: Account, uri: str) -> Store:
    """The folder of a datastore's address."""
    name, path = path_in_datastore(uri)
    with translated():
        datastore = account.ml.datastores.get(name)
        return Store(account.blobs(datastore.account_name).get_container_client(datastore.container_name), path)
