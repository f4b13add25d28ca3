"""Service Usage, Secret Manager, IAM and Artifact Registry: as much of them as is used, and strict about it."""

import base64
import json
import re
import threading
from urllib.parse import parse_qs, unquote, urlsplit

from tests.clouds.gateway import Request, Response
from tests.clouds.google.answers import Refused, json_answer, not_found
from tests.clouds.google.permissions import REGISTRY

READER = "roles/secretmanager.secretAccessor"
METRICS = [
    f"aiplatform.googleapis.com/custom_model_training_{kind}{what}"
    for kind in ("", "preemptible_")
    for what in ("cpus", *(f"nvidia_{gpu}_gpus" for gpu in ("t4", "l4", "a100", "a100_80gb", "h100")))
]
METRICS += [
    f"compute.googleapis.com/{what}"
    for what in (
        "cpus",
        "n2_cpus",
        "gpus_all_regions",
        *(f"nvidia_{gpu}_gpus" for gpu in ("t4", "l4", "a100", "a100_80gb")),
    )
]


class Services:
    """Which services are on, and the project's limits."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.off: set[str] = set()
        self.limits: dict[str, int] = {}
        """By metric; GPUs have none unless a value stands here, as in a new project."""

    def limit(self, metric: str) -> int:
        return self.limits.get(metric, 100 if metric.endswith("cpus") else 0)

    def serve(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        if parts.path.endswith("/services:batchGet"):
            return json_answer({"services": [self._service(name) for name in parse_qs(parts.query)["names"]]})
        metric = unquote(parts.path.partition("/consumerQuotaMetrics/")[2])
        if metric not in METRICS:
            raise not_found(metric)
        region = {"dimensions": {"region": self.cloud.region}}
        # A limit of nothing is left out, as the real service does.
        value = {"effectiveLimit": str(self.limit(metric))} if self.limit(metric) else {}
        buckets = [{"effectiveLimit": "0"}, region | value]
        return json_answer({"metric": metric, "consumerQuotaLimits": [{"metric": metric, "quotaBuckets": buckets}]})

    def _service(self, name: str) -> dict:
        api = name.rpartition("/")[2]
        return {
            "name": f"projects/{self.cloud.number}/services/{api}",
            "state": "DISABLED" if api in self.off else "ENABLED",
        }


class Secrets:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.values: dict[str, list[bytes]] = {}
        """Versions by name."""
        self.readers: dict[str, set[str]] = {}
        self.read: list[tuple[str, str]] = []
        """(account, name) of every value that was given out."""

    def serve(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        name, _, verb = parts.path.removeprefix("/v1/").partition(":")
        if name.endswith("/secrets"):
            return self._create(f"{name}/{parse_qs(parts.query)['secretId'][0]}", json.loads(request.body))
        secret = name.partition("/versions/")[0]
        if secret not in self.values:
            raise not_found(secret)
        if verb == "addVersion":
            self.values[secret].append(base64.b64decode(json.loads(request.body)["payload"]["data"]))
        elif verb == "setIamPolicy":
            bindings = json.loads(request.body)["policy"]["bindings"]
            self.readers[secret] = {who for each in bindings if each["role"] == READER for who in each["members"]}
        elif verb == "access":
            return self._access(secret, self.cloud.tokens.owner(request.headers["Authorization"]))
        elif request.method == "DELETE":
            del self.values[secret]
        return json_answer({})

    def _create(self, name: str, asked: dict) -> Response:
        if not re.fullmatch(r"projects/[^/]+/secrets/[A-Za-z0-9_-]{1,255}", name) or "replication" not in asked:
            raise Refused(400, "INVALID_ARGUMENT", f"{name} is no name of a secret, or its replication is missing")
        if name in self.values:
            raise Refused(409, "ALREADY_EXISTS", f"Secret [{name}] already exists.")
        self.values[name] = []
        return json_answer({"name": name})

    def _access(self, name: str, who: str) -> Response:
        if f"serviceAccount:{who}" not in self.readers.get(name, set()):
            message = "Permission 'secretmanager.versions.access' denied"
            raise Refused(403, "PERMISSION_DENIED", f"{message} for {who} on {name}")
        if not self.values[name]:
            raise not_found(f"{name}/versions/latest")
        self.read.append((who, name))
        return json_answer({"payload": {"data": base64.b64encode(self.values[name][-1]).decode()}})


class Accounts:
    """Who may do what; and the service accounts."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.permissions: dict[str, set[str]] = {}
        """By e-mail address."""
        self.acting: dict[str, set[str]] = {}
        """Who may act as a service account, by its address."""

    def may(self, who: str, permission: str) -> bool:
        return permission in self.permissions.get(who, set())

    def serve(self, request: Request) -> Response:
        email = unquote(urlsplit(request.path).path.partition("/serviceAccounts/")[2]).removesuffix(
            ":testIamPermissions"
        )
        if email not in self.acting:
            raise not_found(email)
        who = self.cloud.tokens.owner(request.headers["Authorization"])
        asked = json.loads(request.body)["permissions"]
        return json_answer({"permissions": asked if who in self.acting[email] else []})


class Repositories:
    """Artifact Registry's repositories; what is in them lies in the real registry behind the host."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.names: set[str] = set()
        self._made: dict[str, int] = {}
        """How often an operation was asked for."""
        self._lock = threading.Lock()

    def serve(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        name = parts.path.removeprefix("/v1/")
        if request.method == "POST":
            return self._create(f"{name}/{parse_qs(parts.query)['repositoryId'][0]}", json.loads(request.body))
        if "/operations/" in name:
            with self._lock:
                self._made[name] += 1
            return json_answer({"name": name, "done": self._made[name] > 1})
        if name not in self.names:
            raise not_found(name)
        return json_answer({"name": name, "format": "DOCKER"})

    def _create(self, name: str, asked: dict) -> Response:
        if asked != {"format": "DOCKER", "dockerConfig": {"immutableTags": True}}:
            raise Refused(400, "INVALID_ARGUMENT", f"a repository of {asked} is not served here")
        with self._lock:
            if name in self.names:
                raise Refused(409, "ALREADY_EXISTS", "the repository already exists")
            self.names.add(name)
            operation = f"projects/{self.cloud.project}/locations/{self.cloud.region}/operations/{len(self.names)}"
            self._made[operation] = 0
        return json_answer({"name": operation, "done": False})

    def allow(self, user: str, password: str, operation: str, repository: str) -> bool:
        who = self.cloud.tokens.owners.get(password)
        if user not in ("", "oauth2accesstoken") or who is None or self.cloud.troubles.expired:
            return False
        if operation == "login":
            return True
        project, _, rest = repository.partition("/")
        place = f"projects/{project}/locations/{self.cloud.region}/repositories/{rest.partition('/')[0]}"
        permission = REGISTRY.get(operation, f"unknown operation {operation}")
        reads = permission.endswith("downloadArtifacts")  # of a repository that is not there: not found
        if not (place in self.names or reads) or not self.cloud.accounts.may(who, permission):
            return False
        self.cloud.used.add((who, permission))
        return True
