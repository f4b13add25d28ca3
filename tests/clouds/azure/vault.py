"""Key Vault: secrets by the REST interface 7.x, with the challenge that the vendor's client waits for."""

import json
from urllib.parse import urlsplit

from tests.clouds.azure.answers import Refused, answer, denied, match
from tests.clouds.gateway import Request, Response

AUDIENCE = "https://vault.azure.net"
ACTIONS = "Microsoft.KeyVault/vaults/secrets"


class Vault:
    name = "ftlaunch-vault"

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.host = f"{self.name}.vault.azure.net"
        self.values: dict[str, dict] = {}
        self.deleted: dict[str, dict] = {}
        self.read: list[tuple[str, str]] = []
        """(principal, secret) of what was read."""
        cloud.gateway.route(self.host.replace(".", r"\."), self.serve)

    def serve(self, request: Request) -> Response:
        if trouble := self.cloud.trouble_for(request):
            return trouble
        principal = self.cloud.entra.principal(request.headers.get("Authorization"), AUDIENCE)
        if principal is None:
            where = f"https://login.microsoftonline.com/{self.cloud.entra.tenant}"
            challenge = f'Bearer authorization="{where}", resource="{AUDIENCE}"'
            body = {"error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer token."}}
            return answer(body, 401, (("WWW-Authenticate", challenge),))
        try:
            return answer(self._answer(request, principal))
        except Refused as refused:
            return refused.response()

    def _answer(self, request: Request, principal: str) -> dict:
        path = urlsplit(request.path).path.rstrip("/")
        if found := match("/secrets/{name}", path):
            name = found["name"].lower()
            verbs = {"PUT": self._set, "GET": self._get, "DELETE": self._delete}
            return verbs[request.method](request, principal, name)
        if found := match("/deletedsecrets/{name}", path):
            return self._of(self.deleted, found["name"].lower())
        if (found := match("/deletedsecrets/{name}/recover", path)) and request.method == "POST":
            self._may(principal, "recover")
            name = found["name"].lower()
            self.values[name] = self._of(self.deleted, name)
            del self.deleted[name]
            return self.values[name]
        raise Refused(400, "BadParameter", f"{request.method} {path} is not served here")

    def _set(self, request: Request, principal: str, name: str) -> dict:
        self._may(principal, "setSecret")
        if name in self.deleted:
            raise Refused(409, "Conflict", f"Secret {name} is currently in a deleted but recoverable state")
        told = json.loads(request.body)
        where = {"id": f"https://{self.host}/secrets/{name}/{len(self.values):032x}", "attributes": {"enabled": True}}
        self.values[name] = {"value": told["value"], "tags": told.get("tags", {}), **where}
        return self.values[name]

    def _get(self, request: Request, principal: str, name: str) -> dict:
        self._may(principal, "getSecret")
        found = self._of(self.values, name)
        self.read.append((principal, name))
        return found

    def _delete(self, request: Request, principal: str, name: str) -> dict:
        self._may(principal, "delete", "")
        found = self._of(self.values, name)
        self.deleted[name] = found | {"recoveryId": f"https://{self.host}/deletedsecrets/{name}"}
        del self.values[name]
        return {key: value for key, value in self.deleted[name].items() if key != "value"}

    def _may(self, principal: str, action: str, kind: str = "/action") -> None:
        action = f"{ACTIONS}/{action}{kind}"
        if not self.cloud.rights.allowed(principal, action):
            raise denied(principal, action)

    def _of(self, where: dict[str, dict], name: str) -> dict:
        if name not in where:
            raise Refused(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
        return where[name]
