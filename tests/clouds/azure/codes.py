"""The workspace's code assets: a job's own folder, sent to a container of its own and found again by its hash."""

import uuid
from pathlib import Path
from urllib.parse import urlsplit

from tests.clouds.azure.answers import Refused, match
from tests.clouds.azure.shapes import require


class Codes:
    """Each call gives the answer's content or raises `Refused`."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.versions: dict[tuple[str, str], dict] = {}
        """The properties by name and version."""
        self._asked: dict[tuple[str, str], str] = {}
        """The container that was opened for an upload."""

    def list(self, name: str, query: dict[str, list[str]]) -> dict:
        """The versions whose content has the hash that is asked for; the name does not count then."""
        (wanted,) = query.get("hash", [None])
        found = [
            self.get(*each)
            for each, told in self.versions.items()
            if (wanted and told["properties"].get("hash_sha256") == wanted) or (not wanted and each[0] == name)
        ]
        return {"value": found}

    def open_upload(self, name: str, version: str, content: dict) -> dict:
        """A container of its own, and a signature that lets anyone fill it for a while."""
        if content.get("pendingUploadType") != "TemporaryBlobReference":
            raise Refused(400, "ValidationError", f"{content} asks for no place in the workspace's storage")
        container = self._asked.setdefault((name, version), f"code-{uuid.uuid4()}")
        blob_uri, sas_uri = self.cloud.storage.opened(container)
        return {
            "pendingUploadId": container,
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": blob_uri,
                "credential": {"credentialType": "SAS", "sasUri": sas_uri},
            },
        }

    def put(self, name: str, version: str, content: dict) -> dict:
        require("CodeVersion", content)
        told = content["properties"]
        container, path = self._place(told["codeUri"])
        if not any(True for _ in container.list_blob_names(name_starts_with=path)):
            raise Refused(400, "ValidationError", f"nothing was sent to {told['codeUri']}")
        if self.versions.setdefault((name, version), told) != told:
            raise Refused(409, "Conflict", f"the code {name}:{version} exists already with another content")
        return self.get(name, version)

    def get(self, name: str, version: str) -> dict:
        if (name, version) not in self.versions:
            raise Refused(404, "UserError", f"No code {name}:{version}")
        return {
            "id": f"{self.cloud.scope}/codes/{name}/versions/{version}",
            "name": version,
            "type": "Microsoft.MachineLearningServices/workspaces/codes/versions",
            "properties": self.versions[name, version] | {"provisioningState": "Succeeded"},
        }

    def load(self, resource: str, folder: Path) -> None:
        """Write the files of a code asset, by its resource id, into a folder."""
        container, path = self._place(self.of(resource)["codeUri"])
        for blob in container.list_blob_names(name_starts_with=path):
            target = folder / blob[len(path) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(container.download_blob(blob).readall())

    def of(self, resource: str) -> dict:
        found = match(f"{self.cloud.scope}/codes/{{name}}/versions/{{version}}", resource)
        if found is None:
            raise Refused(400, "ValidationError", f"{resource} is no code of this workspace")
        return self.get(**found)["properties"]

    def _place(self, uri: str):
        """Container client and path of an address in the workspace's storage account."""
        parts = urlsplit(uri)
        container, _, path = parts.path.lstrip("/").partition("/")
        if parts.hostname != self.cloud.storage.host or container not in self._asked.values():
            raise Refused(400, "ValidationError", f"{uri} is no place that was opened for an upload")
        return self.cloud.storage.service.get_container_client(container), path
