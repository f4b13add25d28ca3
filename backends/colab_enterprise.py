"""Colab Enterprise: a notebook execution job that runs the training code of the wheel in a Python of the runtime's own.

The execution has an id of our choosing, the job's name, so that the service itself refuses a second one. Data, code,
log and results lie in Cloud Storage. The service has no call that lets a notebook end well: a stop is a file in the
job's folder, which the notebook looks for (`colab_enterprise_runner`). Nothing of Google's libraries is imported before
a method needs it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import SecretStr

from backends import colab_enterprise_checks, colab_enterprise_request, google_secrets, prices
from backends.colab_enterprise_request import EXECUTED, NOTEBOOK, ColabEnterpriseOptions
from backends.colab_enterprise_status import LOG, STOP, told
from backends.google_calls import SECONDS, Account, GoogleError, ask, call, pages, with_project
from backends.google_places import in_every_place
from backends.google_request import JOB_LABEL, bucket_of, label
from backends.google_storage import Store, make_bucket, split_uri
from backends.home import data_home
from backends.interface import (
    Backend,
    BackendError,
    BackendOptions,
    Capabilities,
    ContainerRequest,
    Cursor,
    Finding,
    Handle,
    JobNotFound,
    Json,
    LogLine,
    Offer,
    Plan,
    Status,
    Submission,
)

OUTPUT = "output"
ALREADY_EXISTS = 409


class ColabEnterprise(Backend):
    """Trains in a notebook of Colab Enterprise."""

    name: ClassVar[str] = colab_enterprise_request.NAME
    capabilities: ClassVar[Capabilities] = Capabilities(secrets=True, log_cursor=True, partial_fetch=True, image=False)
    options: ClassVar[type[BackendOptions]] = ColabEnterpriseOptions
    summary: ClassVar[str] = "notebook executions of Colab Enterprise on Google Cloud, on demand, without an image"
    extra: ClassVar[str] = "gcp"

    @property
    def bills(self) -> bool:
        """Google bills the runtime; the service does not tell for how long."""
        return True

    def plan(self, submission: Submission) -> Plan:
        """The NotebookExecutionJob, exactly as it is sent, its notebook and what else the submit needs beside it."""
        return colab_enterprise_request.make_plan(submission)

    def container(self, plan: Plan) -> ContainerRequest:
        """The training as the notebook starts it."""
        return colab_enterprise_request.container(plan)

    def resolve(self, plan: Plan) -> Plan:
        """Fill the project from the credentials."""
        return with_project(plan, colab_enterprise_request.unresolved)

    def preflight(self, plan: Plan) -> list[Finding]:
        """Look at credentials, APIs, bucket, service account, runtime template and quota."""
        return colab_enterprise_checks.findings(_account(plan.request), plan)

    def stage(self, plan: Plan, files: Mapping[str, Path]) -> None:
        """Send data and code to Cloud Storage by content, and the job's own spec and notebook."""
        account, given = _account(plan.request), plan.request["notebook"]["metadata"]["ftlaunch"]
        bucket, prefix = split_uri(given["place"].rpartition("/jobs/")[0])
        if bucket == bucket_of(account.project, account.region):
            make_bucket(account, bucket)
        pool = f"{prefix}/files"
        Store(account, given["data"]).send_files(pool, plan.inputs, files)
        with tempfile.TemporaryDirectory(prefix="ftlaunch-") as folder:
            code = {name: Path(folder, name) for name in plan.request["code"]}
            for name, content in colab_enterprise_request.code_files().items():
                Path(folder, name).write_bytes(content)
            Store(account, given["code"]).send_files(pool, plan.request["code"], code)
        place = Store(account, given["place"])
        Store(account, f"{given['place']}/spec").send_text(
            "spec.json", plan.spec.model_dump_json(by_alias=True, indent=1)
        )
        place.send_text(NOTEBOOK, _written(plan.request["notebook"]))

    def submit(self, plan: Plan, secrets: Mapping[str, SecretStr]) -> Handle:
        """Put the secrets into Secret Manager and create the execution; one with that id is given as it is."""
        if plan.unresolved:
            raise BackendError("the plan has unresolved values", hint=plan.unresolved[0].hint)
        account, request = _account(plan.request), plan.request
        _note(plan)
        name = _name(account, plan.job_name)
        if _got(account, name) is None:
            try:
                reader, labels = request["notebookExecutionJob"]["serviceAccount"], {JOB_LABEL: label(plan.job_name)}
                google_secrets.put(account, plan.job_name, secrets, reader, labels)
                _create(account, request)
            except BackendError:
                if _got(account, name) is None:
                    google_secrets.delete(account, request["notebook"]["metadata"]["ftlaunch"]["environment"])
                    raise
        return _handle(account, plan.job_name, _get(account, name))

    def find(self, job_name: str) -> Handle | None:
        """Ask for the execution of that id where it was to be submitted."""
        account = _noted(job_name)
        found = _got(account, _name(account, job_name))
        return None if found is None else _handle(account, job_name, found)

    def known(self) -> Iterable[Handle]:
        """The executions that carry our label, in the credentials' project and the default region and wherever jobs
        were submitted from here."""
        return in_every_place(self.name, ColabEnterpriseOptions().region, _known)

    def status(self, handle: Handle) -> Status:
        """Get the execution; why the training ended is read in the bucket, for the service knows only that it did."""
        account, name, place = _of_handle(handle)
        return told(_get(account, name), Store(account, place))

    def logs(self, handle: Handle, after: Cursor | None) -> Iterator[LogLine]:
        """The lines that the notebook has brought to the bucket so far, some seconds behind; the cursor counts them."""
        account, name, place = _of_handle(handle)
        if after is None:
            _get(account, name)
        begin = _position(after)
        text = Store(account, place).text(LOG) or ""
        for number, line in enumerate(text.split("\n")[:-1][begin:], begin + 1):
            yield LogLine(text=line, cursor=str(number))

    def cancel(self, handle: Handle) -> None:
        """Leave the file that makes the notebook stop the training and bring what it has.

        An execution without a machine yet is cancelled at the service, as far as that takes it; else its notebook ends
        as soon as it begins.
        """
        account, name, place = _of_handle(handle)
        store = Store(account, place)
        status = told(_get(account, name), store)
        if not status.state.ended:
            store.create(STOP)
            if status.native_state in ("JOB_STATE_QUEUED", "JOB_STATE_PENDING"):
                _cancel_operations(account, name)

    def resume(self, handle: Handle) -> Handle:
        """Not offered: the runtime is gone with its checkpoints."""
        raise BackendError("a notebook execution cannot be resumed", hint="run the job again")

    def fetch(self, handle: Handle, into: Path) -> None:
        """Fetch the output tree and the executed notebook from the bucket, each file checked."""
        account, name, place = _of_handle(handle)
        if not told(_get(account, name), Store(account, place)).state.ended:
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch logs -f {handle.job_name}")
        Store(account, f"{place}/{OUTPUT}").fetch(into)
        Store(account, f"{place}/{EXECUTED}/{name.rpartition('/')[2]}").fetch(into)

    def remove(self, handle: Handle) -> None:
        """Delete the ended job's secrets; its results stay in the bucket, its record at the service."""
        account, name, place = _of_handle(handle)
        store = Store(account, place)
        if not told(_get(account, name), store).state.ended:
            raise BackendError(f"{handle.job_name} has not ended yet", hint=f"ftlaunch cancel {handle.job_name}")
        written = json.loads(store.text(NOTEBOOK) or "{}")
        google_secrets.delete(account, written.get("metadata", {}).get("ftlaunch", {}).get("environment", {}))

    def offers(self, region: str | None) -> Iterable[Offer]:
        """The machines with GPUs and what is known of their prices."""
        return prices.offers(self.name, region)


def _account(request: Json) -> Account:
    return Account(str(request["project"]), str(request["region"]))


def _name(account: Account, job_name: str) -> str:
    identifier = colab_enterprise_request.execution_id(job_name)
    return f"projects/{account.project}/locations/{account.region}/notebookExecutionJobs/{identifier}"


def _handle(account: Account, job_name: str, job: Any) -> Handle:
    place = str(job.gcs_output_uri).removesuffix(f"/{EXECUTED}")
    facts = {"project": account.project, "region": account.region, "name": _name(account, job_name), "place": place}
    return Handle(backend=ColabEnterprise.name, job_name=job_name, data=facts)


def _known(account: Account) -> Iterator[Handle]:
    parent = f"projects/{account.project}/locations/{account.region}"
    for job in ask(lambda: list(account.notebooks.list_notebook_execution_jobs(request={"parent": parent}))):
        if JOB_LABEL in job.labels:
            yield _handle(account, str(job.display_name), job)


def _of_handle(handle: Handle) -> tuple[Account, str, str]:
    try:
        account = Account(str(handle.data["project"]), str(handle.data["region"]))
        return account, str(handle.data["name"]), str(handle.data["place"])
    except (KeyError, TypeError) as error:
        message = f"the record of {handle.job_name} does not say where it runs"
        raise BackendError(message, hint="run the job again; it is found by its name") from error


def _note(plan: Plan) -> None:
    """Keep where the job is being created, for a launcher that is killed before it hears of it."""
    folder = data_home() / ColabEnterprise.name
    folder.mkdir(parents=True, exist_ok=True)
    place = {key: plan.request[key] for key in ("project", "region")}
    (folder / f"{plan.job_name}.json").write_text(json.dumps(place))


def _noted(job_name: str) -> Account:
    path = data_home() / ColabEnterprise.name / f"{job_name}.json"
    place: Json = json.loads(path.read_text()) if path.exists() else {}
    return Account(place.get("project"), str(place.get("region") or ColabEnterpriseOptions().region))


def _written(notebook: Json) -> str:
    """The notebook as a file, held against its format."""
    import nbformat

    made = nbformat.from_dict(notebook)
    nbformat.validate(made)
    return str(nbformat.writes(made))


def _create(account: Account, request: Json) -> None:
    """Create the execution. A second one of that id the service refuses, so that the call may be made again."""
    from google.cloud.aiplatform_v1.types import NotebookExecutionJob

    body = NotebookExecutionJob.from_json(json.dumps(request["notebookExecutionJob"]))
    asked = {
        "parent": f"projects/{account.project}/locations/{account.region}",
        "notebook_execution_job": body,
        "notebook_execution_job_id": request["notebookExecutionJobId"],
    }
    try:
        call(account.notebooks.create_notebook_execution_job, request=asked, timeout=SECONDS)
    except GoogleError as error:
        if error.code != ALREADY_EXISTS:
            raise


def _got(account: Account, name: str) -> Any:
    """The execution; None if there is none."""
    try:
        return ask(account.notebooks.get_notebook_execution_job, name=name, timeout=SECONDS)
    except GoogleError as error:
        if error.code in (400, 404):
            return None
        raise


def _get(account: Account, name: str) -> Any:
    found = _got(account, name)
    if found is None:
        message = f"Colab Enterprise in {account.region} knows no execution {name}"
        raise JobNotFound(message, hint="ftlaunch jobs lists those that were started")
    return found


def _cancel_operations(account: Account, name: str) -> None:
    """Cancel the operation that makes the execution; where the service has no such thing, the file stop is enough."""
    service = f"https://{account.region}-aiplatform.googleapis.com/v1"
    try:
        for operation in pages(account, f"{service}/{name}/operations", "operations"):
            if not operation.get("done"):
                account.rest("POST", f"{service}/{operation['name']}:cancel", {})
    except GoogleError as error:
        if error.code not in (400, 403, 404, 501):
            raise


def _position(cursor: Cursor | None) -> int:
    try:
        return int(cursor or 0)
    except ValueError as error:
        raise BackendError(f"{cursor!r} is no cursor of this place", hint="read the log from its beginning") from error
