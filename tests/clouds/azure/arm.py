"""Azure's resource manager, as far as a workspace's jobs need it: every call is checked against the caller's role."""

import inspect
import json
from urllib.parse import parse_qs, urlsplit

from tests.clouds.azure.answers import Refused, answer, denied, match
from tests.clouds.azure.shapes import require
from tests.clouds.gateway import Request, Response

HOST = "management.azure.com"
AUDIENCES = (f"https://{HOST}", f"https://{HOST}/", "https://management.core.windows.net/")
PROVIDER = "Microsoft.MachineLearningServices"


class Arm:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.environments: dict[tuple[str, str], str] = {}
        """Image by name and version."""
        self.computes: dict[str, dict] = {}
        self.puts: dict[str, dict] = {}
        """The last body by path."""
        self.routes = self._routes()
        cloud.gateway.route(HOST.replace(".", r"\."), self.serve)

    def _routes(self):
        """(method, pattern, action, answer) of all that is served here."""
        subscription = f"/subscriptions/{self.cloud.subscription}"
        regional = f"{subscription}/providers/{PROVIDER}/locations/{{region}}"
        place, jobs, codes = self.cloud.scope, self.cloud.jobs, self.cloud.codes
        code = f"{place}/codes/{{name}}/versions/{{version}}"
        return (
            ("GET", "/subscriptions", "Microsoft.Resources/subscriptions/read", self._subscriptions),
            ("GET", f"{subscription}/providers/{PROVIDER}/workspaces", "workspaces/read", self._workspaces),
            ("GET", place, "workspaces/read", self.workspace),
            ("GET", f"{place}/datastores/{{name}}", "workspaces/datastores/read", self._datastore),
            ("GET", f"{place}/computes/{{name}}", "workspaces/computes/read", self.compute),
            ("GET", f"{regional}/usages", "locations/usages/read", lambda region: self.cloud.quotas.usages()),
            ("GET", f"{regional}/vmSizes", "locations/vmsizes/read", lambda region: self.cloud.quotas.sizes()),
            (
                "GET",
                f"{place}/environments/{{name}}/versions/{{version}}",
                "workspaces/environments/read",
                self._environment,
            ),
            (
                "PUT",
                f"{place}/environments/{{name}}/versions/{{version}}",
                "workspaces/environments/write",
                self._put_environment,
            ),
            ("GET", f"{place}/codes/{{name}}/versions", "workspaces/codes/versions/read", codes.list),
            ("GET", code, "workspaces/codes/versions/read", codes.get),
            ("PUT", code, "workspaces/codes/versions/write", codes.put),
            ("POST", f"{code}/startPendingUpload", "workspaces/codes/versions/write", codes.open_upload),
            ("GET", f"{place}/jobs", "workspaces/jobs/read", jobs.list),
            ("GET", f"{place}/jobs/{{name}}", "workspaces/jobs/read", jobs.get),
            ("PUT", f"{place}/jobs/{{name}}", "workspaces/jobs/write", self._put_job),
            ("POST", f"{place}/jobs/{{name}}/cancel", "workspaces/jobs/cancel/action", self._cancel),
        )

    def serve(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        if trouble := self.cloud.trouble_for(request):
            return trouble
        principal = self.cloud.entra.principal(request.headers.get("Authorization"), *AUDIENCES)
        if principal is None:
            return Refused(401, "InvalidAuthenticationToken", "The access token is invalid.").response()
        try:
            if "api-version" not in parse_qs(parts.query):
                raise Refused(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
            return self.cloud.cut(self._answer(request, parts.path.rstrip("/"), principal))
        except Refused as refused:
            return refused.response()

    def _answer(self, request: Request, path: str, principal: str) -> Response:
        for method, pattern, action, call in self.routes:
            found = match(pattern, path)
            if found is None or method != request.method:
                continue
            action = action if action.startswith("Microsoft.") else f"{PROVIDER}/{action}"
            if not self.cloud.rights.allowed(principal, action):
                raise denied(principal, action)
            content = json.loads(request.body) if request.body else {}
            if method == "PUT":
                self.puts[path] = content
            given = {**found, "content": content, "query": parse_qs(urlsplit(request.path).query)}
            told = call(**{name: given[name] for name in inspect.signature(call).parameters})
            return told if isinstance(told, Response) else answer(told)
        raise Refused(404, "ResourceNotFound", f"{request.method} {path} is not served here")

    def _subscriptions(self) -> dict:
        here = self.cloud.subscription
        return {"value": [{"id": f"/subscriptions/{here}", "subscriptionId": here, "displayName": "loopback"}]}

    def _workspaces(self) -> dict:
        return {"value": [self.workspace()]}

    def workspace(self) -> dict:
        group = f"/subscriptions/{self.cloud.subscription}/resourceGroups/{self.cloud.group}/providers"
        return {
            "id": self.cloud.scope,
            "name": self.cloud.workspace,
            "type": f"{PROVIDER}/workspaces",
            "location": self.cloud.region,
            "identity": {"type": "SystemAssigned", "tenantId": self.cloud.tenant},
            "properties": {
                "workspaceId": "11111111-1111-1111-1111-111111111111",
                "friendlyName": self.cloud.workspace,
                "containerRegistry": f"{group}/Microsoft.ContainerRegistry/registries/{self.cloud.registry.name}",
                "keyVault": f"{group}/Microsoft.KeyVault/vaults/{self.cloud.vault.name}",
                "storageAccount": f"{group}/Microsoft.Storage/storageAccounts/{self.cloud.storage.account}",
                "discoveryUrl": f"https://{self.cloud.history.host}/discovery",
                "mlFlowTrackingUri": self.cloud.history.tracking,
                "provisioningState": "Succeeded",
            },
        }

    def _datastore(self, name: str) -> dict:
        if name != "workspaceblobstore":
            raise Refused(404, "UserError", f"Could not find datastore: {name}")
        return {
            "id": f"{self.cloud.scope}/datastores/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/datastores",
            "properties": {
                "datastoreType": "AzureBlob",
                "accountName": self.cloud.storage.account,
                "containerName": self.cloud.storage.container,
                "credentials": {"credentialsType": "AccountKey"},
                "endpoint": "core.windows.net",
                "protocol": "https",
                "isDefault": True,
            },
        }

    def add_cluster(self, name: str, machine: str, most: int, *, low_priority: bool) -> None:
        """What ``az ml compute create --type amlcompute`` makes."""
        self.computes[name] = {
            "id": f"{self.cloud.scope}/computes/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/computes",
            "location": self.cloud.region,
            "properties": {
                "computeType": "AmlCompute",
                "computeLocation": self.cloud.region,
                "provisioningState": "Succeeded",
                "properties": {
                    "vmSize": machine,
                    "vmPriority": "LowPriority" if low_priority else "Dedicated",
                    "scaleSettings": {
                        "maxNodeCount": most,
                        "minNodeCount": 0,
                        "nodeIdleTimeBeforeScaleDown": "PT120S",
                    },
                    "allocationState": "Steady",
                },
            },
        }

    def compute(self, name: str) -> dict:
        if name not in self.computes:
            raise Refused(404, "UserError", f"Compute {name} not found.")
        return self.computes[name]

    def _environment(self, name: str, version: str) -> dict:
        if (name, version) not in self.environments:
            raise Refused(404, "UserError", f"No environment {name}:{version}")
        return {
            "id": f"{self.cloud.scope}/environments/{name}/versions/{version}",
            "name": version,
            "type": f"{PROVIDER}/workspaces/environments/versions",
            "properties": {
                "image": self.environments[name, version],
                "environmentType": "UserCreated",
                "isAnonymous": False,
                "isArchived": False,
                "osType": "Linux",
            },
        }

    def _put_environment(self, name: str, version: str, content: dict) -> dict:
        require("EnvironmentVersion", content)
        image = content["properties"]["image"]
        if self.environments.setdefault((name, version), image) != image:
            raise Refused(409, "Conflict", f"the environment {name}:{version} exists already with another image")
        return self._environment(name, version)

    def environment_of(self, resource: str) -> str:
        """The image of an environment by its resource id."""
        found = match(f"{self.cloud.scope}/environments/{{name}}/versions/{{version}}", resource)
        if found is None:
            raise Refused(400, "ValidationError", f"{resource} is no environment of this workspace")
        return self._environment(**found)["properties"]["image"]

    def image_of(self, resource: str) -> str:
        """The real registry's name of an environment's image, by digest."""
        from tests.clouds.azure.machine_room import Failed

        uri = self.environment_of(resource)
        host, _, rest = uri.partition("/")
        repository, _, tag = rest.partition(":")
        digest = self.cloud.registry.front.digest(repository, tag) if host == self.cloud.registry.host else None
        if digest is None:
            raise Failed("UserError", f"Failed to pull Docker image {uri}: manifest unknown")
        return f"{self.cloud.registry.front.local(repository)}@{digest}"

    def _put_job(self, name: str, content: dict) -> Response:
        new = name not in self.cloud.jobs.jobs
        return answer(self.cloud.jobs.put(name, content), 201 if new else 200)

    def _cancel(self, name: str) -> Response:
        self.cloud.jobs.cancel(name)
        where = f"https://{HOST}{self.cloud.scope}/jobs/{name}?api-version=2024-01-01-preview"
        return Response(202, [("Location", where)], b"")
