"""What would make Vertex AI refuse a job, looked up before anything is started or paid for."""

from __future__ import annotations

from collections.abc import Iterator

from backends import google_registry
from backends.cloud_checks import looked, missing_image, wrong
from backends.google_calls import Account, GoogleError, path
from backends.google_machines import Machine, quota_metric
from backends.google_request import bucket_of
from backends.google_storage import TAKE_OWN, is_own, location, split_uri, strange
from backends.interface import BackendError, Finding, Json, Plan
from backends.vertex_request import is_own_image

SERVICES = "https://serviceusage.googleapis.com"
VERTEX_API = "aiplatform.googleapis.com"
NEEDED_APIS = {
    VERTEX_API: "Vertex AI",
    "storage.googleapis.com": "Cloud Storage",
    "artifactregistry.googleapis.com": "Artifact Registry",
    "logging.googleapis.com": "Cloud Logging",
}
SECRETS_API = {"secretmanager.googleapis.com": "Secret Manager"}
ACT_AS = "iam.serviceAccounts.actAs"
QUOTAS = "https://console.cloud.google.com/iam-admin/quotas?project={project}"
MULTI_REGIONS = {"US": ("us", "northamerica"), "EU": ("europe",), "ASIA": ("asia",)}
"""Beginnings of the regions inside."""


def findings(account: Account, plan: Plan) -> list[Finding]:
    """All that can be found; nothing is changed."""
    job: Json = plan.request["customJob"]
    try:
        account.token()
    except BackendError as error:
        return [wrong("credentials", error.message, error.hint)]
    apis = NEEDED_APIS | (SECRETS_API if plan.request["secrets"] else {})
    return looked(
        ("apis", lambda: enabled(account, apis)),
        ("bucket", lambda: bucket(account, job["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"])),
        ("image", lambda: _image(account, job, plan)),
        ("service account", lambda: may_act_as(account, job["jobSpec"].get("serviceAccount"))),
        ("quota", lambda: _quota(account, job["jobSpec"])),
    )


def enabled(account: Account, apis: dict[str, str]) -> Iterator[Finding]:
    """The services that the project must have switched on; ``apis``: their names by address."""
    parent = f"projects/{account.project}"
    names = [f"{parent}/services/{api}" for api in apis]
    for service in account.rest("GET", f"{SERVICES}/v1/{parent}/services:batchGet", names=names)["services"]:
        if service.get("state") != "ENABLED":
            api = str(service["name"]).rpartition("/")[2]
            hint = f"gcloud services enable {api} --project {account.project}"
            yield wrong("apis", f"{apis[api]} is not enabled in the project {account.project}", hint)


def bucket(account: Account, uri: str) -> Iterator[Finding]:
    """Whether the bucket is there, near the job, and the project's own where nobody has named it."""
    name, _ = split_uri(uri)
    where = location(account, name)
    if where is None and name == bucket_of(account.project, account.region):
        message = f"the bucket {name} is not there yet; it is made with the first job"
        yield Finding(level="note", code="bucket", message=message)
    elif where is None:
        hint = f"gcloud storage buckets create gs://{name} --location {account.region}, or correct the option bucket"
        yield wrong("bucket", f"there is no bucket {name}", hint)
    elif name == bucket_of(account.project, account.region) and not is_own(account, name):
        yield wrong("bucket", strange(account, name), TAKE_OWN)
    elif where != account.region.upper() and not account.region.startswith(MULTI_REGIONS.get(where, ("nowhere",))):
        hint = f"take a bucket in {account.region}, or set the option region to {where.lower()}"
        yield wrong("bucket", f"the bucket {name} is in {where}, the job in {account.region}", hint)


def may_act_as(account: Account, email: str | None) -> Iterator[Finding]:
    """Whether the service account is there, and the user may let a job run as it."""
    if email is None:
        return
    address = f"https://iam.googleapis.com/v1/projects/-/serviceAccounts/{path(email)}:testIamPermissions"
    try:
        told = account.rest("POST", address, {"permissions": [ACT_AS]})
    except GoogleError as error:
        if error.code != 404:
            raise
        yield wrong("service account", f"there is no service account {email}", "correct the option service_account")
        return
    if ACT_AS not in told.get("permissions", []):
        hint = f"grant roles/iam.serviceAccountUser on {email} to yourself"
        yield wrong("service account", f"you may not let a job run as {email}", hint)


def quota(account: Account, metric: str, needed: int) -> Iterator[Finding]:
    """Whether the project's limit of a metric in the region is high enough."""
    service = metric.partition("/")[0]
    address = f"{SERVICES}/v1beta1/projects/{account.project}/services/{service}/consumerQuotaMetrics/{path(metric)}"
    try:
        told = account.rest("GET", address)
    except GoogleError as error:
        if error.code != 404:
            raise
        message = f"Service Usage does not know the quota {metric}: is the machine rented in {account.region}?"
        yield Finding(level="warning", code="quota", message=message, hint="correct resources.machine or the region")
        return
    limit = _limit(told, account.region)
    if limit is not None and limit < needed:
        link = QUOTAS.format(project=account.project)
        hint = f"request {needed} or more for the metric {metric} in {account.region}: {link}"
        yield wrong("quota", f"the quota {metric} is {limit} in {account.region}, the job needs {needed}", hint)


def _limit(metric: Json, region: str) -> int | None:
    """The limit in the region; None where there is none. One that the service does not tell is 0."""
    regional, general = None, None
    for limit in metric.get("consumerQuotaLimits", []):
        for each in limit.get("quotaBuckets", []):
            value = int(each.get("effectiveLimit", 0))
            where = each.get("dimensions", {}).get("region")
            if where == region:
                regional = value
            elif where is None:
                general = value
    found = regional if regional is not None else general or 0
    return None if found < 0 else found


def _image(account: Account, job: Json, plan: Plan) -> Iterator[Finding]:
    uri = str(job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["imageUri"])
    if google_registry.digest(account, uri) is None:
        yield missing_image(plan, uri, is_own_image(uri, plan.image))


def _quota(account: Account, spec: Json) -> Iterator[Finding]:
    machine = spec["workerPoolSpecs"][0]["machineSpec"]
    chosen = Machine(machine["machineType"], machine.get("acceleratorType"), machine.get("acceleratorCount", 0))
    metric, each = quota_metric(chosen, spec["scheduling"]["strategy"] != "STANDARD")
    machines = sum(int(pool["replicaCount"]) for pool in spec["workerPoolSpecs"])
    yield from quota(account, metric, each * machines)
