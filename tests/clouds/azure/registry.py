"""The container registry: its logins with tokens of Entra, before the real registry of tests/services.sh."""

import base64
import re
import secrets
from urllib.parse import parse_qs, unquote, urlsplit

import jwt

from tests.clouds.azure.answers import answer, error
from tests.clouds.front import Front
from tests.clouds.gateway import Request, Response

USER = "00000000-0000-0000-0000-000000000000"
AUDIENCES = ("https://containerregistry.azure.net", "https://management.azure.com")
WRITES = ("start_upload", "upload_part", "finish_upload", "put_manifest")
ACTIONS = "Microsoft.ContainerRegistry/registries"


class Registry:
    name = "ftlaunchregistry"

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.host = f"{self.name}.azurecr.io"
        self._key = secrets.token_hex(32)
        # the first route that fits wins: this one, and the front takes what it lets through
        cloud.gateway.route(self.host.replace(".", r"\."), self.serve)
        self.front = Front(cloud.gateway, self.host, f"loopback-{self.name}", self._allow)

    def serve(self, request: Request) -> Response:
        path = urlsplit(request.path).path
        if trouble := self.cloud.trouble_for(request):
            return trouble
        if path == "/oauth2/exchange":
            return self._exchange(request)
        if path == "/oauth2/token":
            return self._token(request)
        shown = request.headers.get("Authorization", "")
        principal = self._principal(shown[7:], "access") if shown.startswith("Bearer ") else None
        if principal is None:
            challenge = f'Bearer realm="https://{self.host}/oauth2/token",service="{self.host}"{_scope(path)}'
            body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
            return answer(
                body, 401, (("WWW-Authenticate", challenge), ("Docker-Distribution-Api-Version", "registry/2.0"))
            )
        if found := re.fullmatch(r"/acr/v1/(.+)/_(tags|manifests)/([^/]+)", path):
            return self._properties(principal, *found.groups())
        del request.headers["Authorization"]
        request.headers["Authorization"] = f"Basic {base64.b64encode(f'{principal}:'.encode()).decode()}"
        return self.cloud.cut(self.front.serve(request))

    def _properties(self, principal: str, repository: str, kind: str, reference: str) -> Response:
        """The registry's own interface beside that of all registries."""
        if not self._allow(principal, "", "get_manifest", repository):
            return error(403, "DENIED", "requested access to the resource is denied")
        digest = self.front.digest(repository, unquote(reference))
        if digest is None:
            body = {"errors": [{"code": f"{kind[:-1].upper()}_UNKNOWN", "message": f"{reference} is not found"}]}
            return answer(body, 404)
        when = "2026-11-24T00:00:00.0000000Z"
        open_to_all = {f"{each}Enabled": True for each in ("delete", "write", "list", "read")}
        told = {"digest": digest, "createdTime": when, "lastUpdateTime": when, "changeableAttributes": open_to_all}
        part = {"tags": ("tag", {"name": reference, "signed": False}), "manifests": ("manifest", {"mediaType": ""})}
        key, more = part[kind]
        return answer({"registry": self.host, "imageName": repository, key: told | more})

    def _exchange(self, request: Request) -> Response:
        form = _form(request)
        principal = self.cloud.entra.principal(f"Bearer {form.get('access_token')}", *AUDIENCES)
        if principal is None or form.get("service") != self.host:
            return error(401, "UNAUTHORIZED", "the token is not one of this tenant's")
        return answer({"refresh_token": self._sign(principal, "refresh")})

    def _token(self, request: Request) -> Response:
        """As the SDK asks (a form with the refresh token), and as the engine does (a login)."""
        if request.method == "POST":
            shown = _form(request).get("refresh_token", "")
        else:
            login = base64.b64decode(request.headers.get("Authorization", "Basic ")[6:]).decode()
            user, _, shown = login.partition(":")
            shown = shown if user == USER else ""
        principal = self._principal(shown, "refresh")
        if principal is None:
            return error(401, "UNAUTHORIZED", "the refresh token is not one of this registry's")
        token = self._sign(principal, "access")
        return answer({"access_token": token, "token": token})

    def _sign(self, principal: str, kind: str) -> str:
        claims = {"sub": principal, "kind": kind, "aud": self.host, "exp": 4102444800}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def _principal(self, token: str, kind: str) -> str | None:
        try:
            claims = jwt.decode(token, self._key, ["HS256"], audience=self.host)
        except jwt.InvalidTokenError:
            return None
        return claims["sub"] if claims["kind"] == kind else None

    def _allow(self, principal: str, _: str, operation: str, repository: str) -> bool:
        if operation == "login":
            return True
        action = f"{ACTIONS}/{'push/write' if operation in WRITES else 'pull/read'}"
        return self.cloud.rights.allowed(principal, action)


def _form(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


def _scope(path: str) -> str:
    """What the SDK reads out of the challenge, and asks a token for."""
    found = re.fullmatch(r"/(?:v2|acr/v1)/(.+)/(?:manifests|blobs|_tags|_manifests)/.*", path)
    return f',scope="repository:{found[1]}:pull"' if found else ""
