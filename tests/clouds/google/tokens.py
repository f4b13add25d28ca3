"""Google's token endpoint and the metadata server of its machines: logins become access tokens, really checked."""

import json
import secrets
import time
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions, jwt

from tests.clouds.gateway import Request, Response
from tests.clouds.google.answers import json_answer

TOKEN_URI = "https://oauth2.googleapis.com/token"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
CLIENT = {"client_id": "loopback.apps.googleusercontent.com", "client_secret": "of-a-loopback-client"}


class Tokens:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.owners: dict[str, str] = {}
        """E-mail address by access token."""
        self._refresh: dict[str, str] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        """Public key and e-mail address by key id."""

    def user_file(self, email: str) -> dict:
        """What ``gcloud auth application-default login`` leaves for a user."""
        token = f"1//{secrets.token_hex(16)}"
        self._refresh[token] = email
        return {"type": "authorized_user", "refresh_token": token, **CLIENT, "quota_project_id": self.cloud.project}

    def key_file(self, email: str) -> dict:
        """A service account's key file, with a key of its own."""
        key, number = rsa.generate_private_key(65537, 2048), secrets.token_hex(8)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._keys[number] = (public.decode(), email)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": self.cloud.project,
            "private_key_id": number,
            "private_key": private.decode(),
            "client_email": email,
            "client_id": "1",
            "token_uri": TOKEN_URI,
        }

    def grant(self, email: str) -> str:
        token = f"ya29.{secrets.token_hex(24)}"
        self.owners[token] = email
        return token

    def owner(self, header: str) -> str | None:
        kind, _, token = header.partition(" ")
        return self.owners.get(token) if kind == "Bearer" else None

    def serve(self, request: Request) -> Response:
        """POST /token: RFC 6749's refresh_token, RFC 7523's signed assertion."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if self.cloud.troubles.expired:
            return _invalid("Token has been expired or revoked.")
        if form.get("grant_type") == "refresh_token":
            known = {name: form.get(name) for name in CLIENT} == CLIENT
            email = self._refresh.get(form["refresh_token"]) if known else None
        else:
            email = self._asserted(form.get("assertion", ""))
        if email is None:
            return _invalid("Bad Request")
        return json_answer({"access_token": self.grant(email), "expires_in": 3599, "token_type": "Bearer"})

    def _asserted(self, assertion: str) -> str | None:
        try:
            key, email = self._keys[jwt.decode_header(assertion)["kid"]]
            claims = jwt.decode(assertion, certs=key, audience=TOKEN_URI)
        except (KeyError, ValueError, exceptions.GoogleAuthError):
            return None
        return email if claims["iss"] == email and claims["exp"] > time.time() else None

    def metadata(self, email: str, request: Request) -> Response:
        """What a machine that runs as that service account is told at its metadata address."""
        if request.headers.get("Metadata-Flavor") != "Google":
            return Response(403, [], b"")
        path = urlsplit(request.path).path
        inner = path.removeprefix("/computeMetadata/v1/").removeprefix("instance/service-accounts/default/")
        if inner == "token":
            answer = json_answer({"access_token": self.grant(email), "expires_in": 3599, "token_type": "Bearer"})
        elif path.endswith("/service-accounts/default/"):
            answer = json_answer({"email": email, "aliases": ["default"], "scopes": [SCOPE]})
        else:
            texts = {"/": "", "project/project-id": self.cloud.project, "universe/universe-domain": "googleapis.com"}
            answer = Response(
                200 if inner in texts else 404, [("Content-Type", "text/plain")], texts.get(inner, "").encode()
            )
        answer.headers.append(("Metadata-Flavor", "Google"))
        return answer


def _invalid(description: str) -> Response:
    body = {"error": "invalid_grant", "error_description": description}
    return Response(400, [("Content-Type", "application/json")], json.dumps(body).encode())
