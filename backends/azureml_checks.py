"""What would make Azure ML refuse a job or let it wait for ever, looked up before anything is started or paid for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backends import azure_registry, azureml_secrets
from backends.azure_calls import ARM, Account, AzureError, Workspace, translated
from backends.azure_machines import as_listed, gpus
from backends.azure_storage import path_in_datastore
from backends.azureml_request import is_own_image
from backends.cloud_checks import looked, missing_image, wrong
from backends.interface import BackendError, Finding, Json, Plan

PROVIDER = "Microsoft.MachineLearningServices"
API = {"api-version": "2024-10-01"}
LOW_PRIORITY = "TotalLowPriorityCores"
"""The quota of low-priority cores: one for all families. A family may have one of its own below it."""
QUOTA = "ask for {cores} or more in the studio: Quota, {family}"


def findings(account: Account, plan: Plan) -> list[Finding]:
    """All that can be found; nothing is changed."""
    try:
        account.check_credential()
    except BackendError as error:
        return [wrong("credentials", error.message, error.hint)]
    try:
        workspace = _workspace(account)
    except BackendError as error:
        return [wrong("workspace", error.message, error.hint)]
    properties: Json = plan.request["JobBase"]["properties"]
    return looked(
        ("region", lambda: _region(str(workspace.location), plan)),
        ("datastore", lambda: _datastore(account, properties)),
        ("compute", lambda: _compute(account, plan, str(workspace.location))),
        ("image", lambda: _image(account, plan)),
        ("key vault", lambda: _key_vault(account, plan)),
    )


def _workspace(account: Account) -> Any:
    place = account.workspace
    try:
        with translated():
            return account.ml.workspaces.get(place.name)
    except AzureError as error:
        if error.status != 404:
            raise
        message = f"there is no workspace {place.name} in the resource group {place.resource_group}"
        hint = "correct backends.azureml.workspace, resource_group and subscription, or make it: az ml workspace create"
        raise BackendError(message, hint=hint) from error


def _region(there: str, plan: Plan) -> Iterator[Finding]:
    if there != plan.region:
        message = f"the workspace is in {there}, the price is that of {plan.region}"
        yield Finding(level="warning", code="region", message=message, hint=f"set backends.azureml.region: {there}")


def _datastore(account: Account, properties: Json) -> Iterator[Finding]:
    name, _ = path_in_datastore(properties["outputs"]["output"]["uri"])
    try:
        with translated():
            store = account.ml.datastores.get(name)
    except AzureError as error:
        if error.status != 404:
            raise
        yield wrong("datastore", f"the workspace has no datastore {name}", "correct backends.azureml.datastore")
        return
    if "blob" not in str(store.type).lower():
        hint = "take a blob datastore: backends.azureml.datastore: workspaceblobstore"
        yield wrong("datastore", f"the datastore {name} is no blob container but {store.type}", hint)
        return
    container = account.blobs(store.account_name).get_container_client(store.container_name)
    try:
        with translated():
            next(iter(container.list_blob_names(results_per_page=1)), None)
    except AzureError as error:
        if error.status != 404:
            raise
        message = f"the storage account {store.account_name} has no container {store.container_name}"
        yield wrong("datastore", message, "make it, or correct the datastore")


def _compute(account: Account, plan: Plan, region: str) -> Iterator[Finding]:
    properties, spot = plan.request["JobBase"]["properties"], plan.request["spot"]
    count = int(properties["resources"]["instanceCount"])
    if "computeId" in properties:
        yield from _cluster(account, properties["computeId"].rpartition("/")[2], plan.machine, count, spot)
    else:
        yield from _quota(account, properties["resources"]["instanceType"], count, region, spot)


def _cluster(account: Account, name: str, machine: str | None, count: int, spot: bool) -> Iterator[Finding]:
    try:
        with translated():
            cluster = account.ml.compute.get(name)
    except AzureError as error:
        if error.status != 404:
            raise
        hint = f"make it (az ml compute create --name {name} --type amlcompute), or leave backends.azureml.compute out"
        yield wrong("compute", f"the workspace has no compute cluster {name}", hint)
        return
    if str(cluster.type).lower() != "amlcompute":
        yield wrong("compute", f"{name} is no compute cluster but {cluster.type}", "take a cluster: AmlCompute")
        return
    yield from _machines(name, str(cluster.size), machine, count)
    if cluster.max_instances < count:
        message = f"the cluster {name} has {cluster.max_instances} machines at most, the job needs {count}"
        yield wrong("compute", message, f"az ml compute update --name {name} --max-instances {count}")
    low = "low" in str(cluster.tier).lower()
    if spot and not low:
        hint = "take a low-priority cluster, leave compute out for a serverless spot job, or set resources.spot: false"
        yield wrong("compute", f"the machines of {name} are dedicated, the job wants spot", hint)
    if low and not spot:
        message = f"the machines of {name} are of low priority and may be taken away; the job then goes on by itself"
        yield Finding(level="warning", code="compute", message=message, hint="resources.spot: true says so")


def _machines(name: str, there: str, machine: str | None, count: int) -> Iterator[Finding]:
    """Whether the cluster's machines are those that the job's body and price are made for."""
    listed = as_listed(there)
    asked = gpus(machine) if machine else 1
    if machine is not None and there.lower() != machine.lower():
        message = f"the machines of {name} are {there}, the job and its price are for {machine}"
        hint = f"set resources.machine: {listed} and leave resources.gpu out, or take another cluster"
        yield wrong("compute", message, hint)
    elif count > 1 and gpus(listed) > asked:
        # On several machines Azure ML starts the processes, as many on each as the body says, which knows a machine by
        # the list's own spelling alone. On one machine the container does, which sees its GPUs.
        message = f"the machines of {name} have {gpus(listed)} GPUs each, the job would use {asked} of each"
        yield wrong("compute", message, f"set resources.machine: {listed}")
    elif machine is None:
        message = f"the machines of {name} are {there}; the job names none, so that it is priced only now"
        yield Finding(level="note", code="compute", message=message, hint=f"set resources.machine: {listed}")


def _quota(account: Account, machine: str, count: int, region: str, spot: bool) -> Iterator[Finding]:
    # by the resource manager's own answers: azure-ai-ml 1.35's entities of them have no values in their attributes
    place = f"{ARM}/subscriptions/{account.workspace.subscription}/providers/{PROVIDER}/locations/{region}"
    sizes = {str(each["name"]).lower(): each for each in account.pages(f"{place}/vmSizes", **API)}
    size = sizes.get(machine.lower())
    if size is None:
        hint = f"correct resources.machine: az ml compute list-sizes --location {region}"
        yield wrong("quota", f"Azure ML has no machine {machine} in {region}", hint)
        return
    if spot and size.get("lowPriorityCapable") is False:
        hint = "take another resources.machine, or set resources.spot: false"
        yield wrong("quota", f"{machine} is not rented at low priority", hint)
        return
    cores = count * int(size["vCPUs"])
    usages = list(account.pages(f"{place}/usages", **API))
    family = str(size["family"])
    names = [LOW_PRIORITY, family] if spot else [family]
    found = {name: [each for each in usages if _counts(each, name, spot, account.workspace)] for name in names}
    if not found[names[0]]:
        message = f"Azure ML tells no quota of {names[0]} in {region}"
        yield Finding(level="warning", code="quota", message=message, hint="look in the studio: Quota")
    for name, rows in found.items():
        for row in rows:
            used, limit = int(row["currentValue"]), int(row["limit"])
            if 0 <= limit < used + cores:  # -1: the row has no limit of its own
                message = f"{limit - used} of {limit} cores of {name} are free in {region}, the job needs {cores}"
                yield wrong("quota", message, QUOTA.format(cores=used + cores, family=name))


def _counts(usage: Json, name: str, spot: bool, workspace: Workspace) -> bool:
    """Whether a row of the usages is the quota of that name that the job's cores count in.

    A family's dedicated and low-priority rows have the same name, and differ in type alone; workspaces that share the
    subscription may have rows of their own.
    """
    if str(usage["name"]["value"]).lower() != name.lower():
        return False
    if name != LOW_PRIORITY and ("lowprioritycores" in str(usage.get("type")).lower()) != spot:
        return False
    place = f"{usage.get('id')}/".lower()
    return "/workspaces/" not in place or f"{workspace.id}/".lower() in place


def _image(account: Account, plan: Plan) -> Iterator[Finding]:
    uri = str(plan.request["Environment"]["image"])
    if azure_registry.digest(account, uri) is None:
        yield missing_image(plan, uri, is_own_image(uri, plan.image))


def _key_vault(account: Account, plan: Plan) -> Iterator[Finding]:
    if plan.request["secrets"]:
        azureml_secrets.look(account, plan.request["JobBase"]["properties"])
    return iter(())
