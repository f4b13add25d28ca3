"""Entra: the token endpoint of one tenant. Tokens are real, signed JSON Web Tokens, verified wherever one is shown."""

import json
import secrets
import time
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.clouds.gateway import Request, Response

HOST = "login.microsoftonline.com"
HOUR = 3600


class Entra:
    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.issuer = f"https://sts.windows.net/{tenant}/"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._secrets: dict[str, tuple[str, str]] = {}

    def add_application(self, name: str) -> dict[str, str]:
        """A service principal with a client secret; gives the environment that logs in as it."""
        client, secret = f"00000000-0000-0000-0000-{secrets.token_hex(6)}", secrets.token_urlsafe(24)
        self._secrets[client] = (secret, name)
        return {"AZURE_TENANT_ID": self.tenant, "AZURE_CLIENT_ID": client, "AZURE_CLIENT_SECRET": secret}

    def token(self, principal: str, audience: str, seconds: int = HOUR) -> str:
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": self.issuer,
            "iat": now,
            "nbf": now - 60,
            "exp": now + seconds,
            "tid": self.tenant,
            "oid": principal,
            "ver": "1.0",
        }
        return jwt.encode(claims, self._key, algorithm="RS256")

    def principal(self, header: str | None, *audiences: str) -> str | None:
        """Whose token an Authorization header holds; None where it is none of ours, or for another service."""
        if not (header or "").startswith("Bearer "):
            return None
        try:
            claims = jwt.decode(
                header[7:], self._key.public_key(), ["RS256"], audience=list(audiences), issuer=self.issuer
            )
        except jwt.InvalidTokenError:
            return None
        return claims["oid"]

    def serve(self, request: Request) -> Response:
        path = urlsplit(request.path).path
        base = f"https://{HOST}/{self.tenant}"
        if path == "/common/discovery/instance":
            metadata = [{"preferred_network": HOST, "preferred_cache": "login.windows.net", "aliases": [HOST]}]
            where = f"{base}/v2.0/.well-known/openid-configuration"
            return _json({"tenant_discovery_endpoint": where, "metadata": metadata})
        if path == f"/{self.tenant}/v2.0/.well-known/openid-configuration":
            return _json(
                {
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "issuer": f"{base}/v2.0",
                    "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                }
            )
        if path == f"/{self.tenant}/oauth2/v2.0/token" and request.method == "POST":
            return self._grant({name: values[0] for name, values in parse_qs(request.body.decode()).items()})
        return _json({"error": "invalid_request", "error_description": f"{path} is not served here"}, 400)

    def _grant(self, form: dict[str, str]) -> Response:
        secret, name = self._secrets.get(form.get("client_id", ""), ("", ""))
        if form.get("grant_type") != "client_credentials" or not secret or form.get("client_secret") != secret:
            text = "AADSTS7000215: Invalid client secret provided."
            return _json({"error": "invalid_client", "error_description": text, "error_codes": [7000215]}, 401)
        scope = form["scope"].split()[0]
        if not scope.endswith("/.default"):
            return _json({"error": "invalid_scope", "error_description": f"AADSTS70011: {scope}"}, 400)
        audience = scope.removesuffix("/.default")
        return _json({"token_type": "Bearer", "expires_in": HOUR, "access_token": self.token(name, audience)})


def _json(content: dict, status: int = 200) -> Response:
    return Response(status, [("Content-Type", "application/json")], json.dumps(content).encode())
