"""What would make Colab Enterprise refuse a job, looked up before anything is started or paid for."""

from __future__ import annotations

from collections.abc import Iterator

from backends.cloud_checks import Check, looked, wrong
from backends.google_calls import SECONDS, Account, GoogleError, call
from backends.google_machines import Machine, compute_quotas
from backends.interface import BackendError, Finding, Json, Plan
from backends.vertex_checks import SECRETS_API, bucket, enabled, may_act_as, quota

NEEDED_APIS = {
    "aiplatform.googleapis.com": "Vertex AI",
    "compute.googleapis.com": "Compute Engine",
    "storage.googleapis.com": "Cloud Storage",
}


def findings(account: Account, plan: Plan) -> list[Finding]:
    """All that can be found; nothing is changed."""
    job: Json = plan.request["notebookExecutionJob"]
    try:
        account.token()
    except BackendError as error:
        return [wrong("credentials", error.message, error.hint)]
    apis = NEEDED_APIS | (SECRETS_API if plan.request["secrets"] else {})
    checks: list[tuple[str, Check]] = [
        ("apis", lambda: enabled(account, apis)),
        ("bucket", lambda: bucket(account, job["gcsOutputUri"])),
        ("service account", lambda: may_act_as(account, job["serviceAccount"])),
    ]
    template = job.get("notebookRuntimeTemplateResourceName")
    if template is None:
        checks.append(("quota", lambda: _quotas(account, job["customEnvironmentSpec"]["machineSpec"])))
    else:
        checks.append(("runtime template", lambda: _template(account, template, plan.machine)))
    return looked(*checks)


def _template(account: Account, name: str, machine: str | None) -> Iterator[Finding]:
    """Whether the template is there, and has the machine that the job asks for."""
    try:
        found = call(account.notebooks.get_notebook_runtime_template, name=name, timeout=SECONDS)
    except GoogleError as error:
        if error.code != 404:
            raise
        hint = f"gcloud colab runtime-templates list --region {account.region}, and correct the option runtime_template"
        yield wrong("runtime template", f"there is no {name}", hint)
        return
    spec = found.machine_spec
    kind = None if spec.accelerator_type.name.endswith("UNSPECIFIED") else spec.accelerator_type.name
    has = Machine(str(spec.machine_type), kind, int(spec.accelerator_count))
    if machine is not None and has.listed != machine:
        message = f"the runtime template has the machine {has.listed}, the job asks for {machine}"
        hint = "leave out resources.gpu and resources.machine, or take another template"
        yield wrong("runtime template", message, hint)
        return
    for metric, needed in compute_quotas(has):
        yield from quota(account, metric, needed)


def _quotas(account: Account, spec: Json) -> Iterator[Finding]:
    machine = Machine(spec["machineType"], spec.get("acceleratorType"), spec.get("acceleratorCount", 0))
    for metric, needed in compute_quotas(machine):
        yield from quota(account, metric, needed)
