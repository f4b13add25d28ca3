"""The account facts that Azure itself knows: the only subscription, the workspace, its registry and its key vault."""

from __future__ import annotations

from backends.azure_calls import ARM, Account, Workspace
from backends.interface import Json

SUBSCRIPTIONS = "2022-12-01"
WORKSPACES = "2024-10-01"


def facts(request: Json, missing: set[str]) -> dict[str, str]:
    """Values by key of what is missing and can be told without guessing: where there is only one."""
    account = Account(Workspace(request["subscription"], request["resource_group"], request["workspace"]))
    given = {key: request[key] for key in ("subscription", "resource_group", "workspace") if key not in missing}
    subscription = given.get("subscription") or _only_subscription(account)
    if subscription is None:
        return {}
    workspaces = [each for each in _workspaces(account, subscription) if _fits(each, given)]
    found = {"subscription": subscription}
    if len(workspaces) == 1:
        found |= _of_workspace(workspaces[0])
    return {key: value for key, value in found.items() if key in missing and value}


def _only_subscription(account: Account) -> str | None:
    found = [str(each["subscriptionId"]) for each in account.pages(f"{ARM}/subscriptions", **_api(SUBSCRIPTIONS))]
    return found[0] if len(found) == 1 else None


def _workspaces(account: Account, subscription: str) -> list[Json]:
    place = f"{ARM}/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/workspaces"
    return list(account.pages(place, **_api(WORKSPACES)))


def _fits(workspace: Json, given: dict[str, str]) -> bool:
    of_group = "resource_group" not in given or _group(workspace).lower() == given["resource_group"].lower()
    return of_group and ("workspace" not in given or workspace["name"].lower() == given["workspace"].lower())


def _of_workspace(workspace: Json) -> dict[str, str]:
    properties = workspace["properties"]
    return {
        "workspace": str(workspace["name"]),
        "resource_group": _group(workspace),
        "registry": _last(properties.get("containerRegistry")),
        "key_vault": _last(properties.get("keyVault")),
    }


def _group(workspace: Json) -> str:
    parts = str(workspace["id"]).split("/")
    return parts[[part.lower() for part in parts].index("resourcegroups") + 1]


def _last(resource: str | None) -> str:
    """The name at the end of a resource's id; empty where there is none."""
    return (resource or "").rpartition("/")[2]


def _api(version: str) -> dict[str, str]:
    return {"api-version": version}
