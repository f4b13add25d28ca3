"""The image on its way to Artifact Registry, by the engine of this machine."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from backends import image_push
from backends.google_calls import Account, GoogleError, call, path
from backends.interface import BackendError, Json, Reason

ADDRESS = "https://artifactregistry.googleapis.com/v1"
USER = "oauth2accesstoken"
KINDS = (
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json"
)
"""Manifests of single images and of indexes."""
ALREADY_EXISTS = 409
_URI = re.compile(
    r"(?P<host>(?P<region>[a-z0-9-]+)-docker\.pkg\.dev)/(?P<project>[^/]+)/(?P<repository>[^/]+)/(?P<rest>.+)"
)


class RegistryImage(NamedTuple):
    """A name in Artifact Registry."""

    host: str
    region: str
    project: str
    repository: str
    package: str
    reference: str
    """A tag or a digest."""


def parse(uri: str) -> RegistryImage:
    """Take a name apart. Raises BackendError for one that is not in Artifact Registry."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise BackendError(
            f"{uri} is not an image in Artifact Registry",
            hint="its name is REGION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE",
        )
    package, at, digest = match["rest"].partition("@")
    package, _, tag = package.partition(":")
    reference = digest if at else tag or "latest"
    return RegistryImage(match["host"], match["region"], match["project"], match["repository"], package, reference)


def digest(account: Account, uri: str) -> str | None:
    """The digest that the registry has under the name; None if it is not there."""
    image = parse(uri)
    inner = f"{image.project}/{image.repository}/{image.package}"
    address = f"https://{image.host}/v2/{inner}/manifests/{image.reference}"

    def ask() -> str | None:
        from google.api_core.exceptions import from_http_response

        answer = account.session.head(address, headers={"Accept": KINDS}, timeout=60)
        if answer.status_code == 404:
            return None
        if answer.status_code >= 400:
            raise from_http_response(answer)
        return str(answer.headers["Docker-Content-Digest"])

    found: str | None = call(ask)
    return found


def send(account: Account, local: str | None, uri: str) -> str:
    """Push the local image under that name unless it is there; its digest. Makes the repository where it is missing,
    with tags that cannot be moved, so that a tag means one image for ever."""

    def log_in() -> dict[str, str]:
        _make_repository(account, parse(uri))
        return {"username": USER, "password": account.token()}

    return image_push.send(local, uri, lambda: digest(account, uri), log_in)


def _make_repository(account: Account, image: RegistryImage) -> None:
    place = f"{ADDRESS}/projects/{image.project}/locations/{image.region}"
    try:
        account.rest("GET", f"{place}/repositories/{path(image.repository)}")
    except GoogleError as error:
        if error.code != 404:
            raise
    else:
        return
    wanted = {"format": "DOCKER", "dockerConfig": {"immutableTags": True}}
    try:
        operation = account.rest("POST", f"{place}/repositories", wanted, repositoryId=image.repository)
    except GoogleError as error:
        if error.code == ALREADY_EXISTS:
            return
        raise
    while not operation.get("done"):
        time.sleep(0.5)
        operation = account.rest("GET", f"{ADDRESS}/{operation['name']}")
    if "error" in operation:
        raise _not_made(image, operation["error"])


def _not_made(image: RegistryImage, error: Json) -> BackendError:
    message = f"the repository {image.repository} was not made: {error.get('message')}"
    return BackendError(message, hint="make it, or set backends.vertex.repository", reason=Reason.BAD_IMAGE)
