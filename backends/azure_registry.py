"""The image on its way to an Azure container registry, by the engine of this machine."""

from __future__ import annotations

from typing import Any, NamedTuple

from backends import image_push
from backends.azure_calls import SCOPE, Account, AzureError, translated
from backends.azureml_request import ACR_IMAGE
from backends.interface import BackendError, Json, Reason

USER = "00000000-0000-0000-0000-000000000000"
"""Who a login with a token is, by the registry's documentation."""


class AcrImage(NamedTuple):
    """A name in a container registry."""

    host: str
    repository: str
    reference: str
    """Tag or digest."""


def parse(uri: str) -> AcrImage:
    """Take a name apart. Raises BackendError for one that is in no container registry of Azure."""
    match = ACR_IMAGE.fullmatch(uri)
    if match is None:
        hint = "push it to NAME.azurecr.io and name that"
        raise BackendError(f"{uri} is not in a container registry of Azure", hint=hint, reason=Reason.BAD_IMAGE)
    name, _, digest = match["rest"].partition("@")
    repository, _, tag = name.partition(":")
    return AcrImage(match["host"], repository, digest or tag or "latest")


def digest(account: Account, uri: str) -> str | None:
    """The digest that the registry has under the name; None if it is not there."""
    from azure.containerregistry import ContainerRegistryClient

    image = parse(uri)
    with ContainerRegistryClient(f"https://{image.host}", account.credential) as client:
        try:
            with translated():
                by_digest = image.reference.startswith("sha256:")
                look = client.get_manifest_properties if by_digest else client.get_tag_properties
                return str(look(image.repository, image.reference).digest)
        except AzureError as error:
            if error.status == 404:
                return None
            raise


def send(account: Account, local: str | None, uri: str) -> str:
    """Push the local image under that name unless it is there; its digest."""

    def log_in() -> dict[str, str]:
        return {"username": USER, "password": _refresh_token(account, parse(uri).host)}

    return image_push.send(local, uri, lambda: digest(account, uri), log_in)


def _refresh_token(account: Account, host: str) -> str:
    """What ``az acr login`` gets: the registry's own token for ours."""
    from azure.core import PipelineClient
    from azure.core.pipeline.policies import RetryPolicy
    from azure.core.rest import HttpRequest

    client: Any = PipelineClient(f"https://{host}", policies=[RetryPolicy()])
    with translated(), client:
        form = {
            "grant_type": "access_token",
            "service": host,
            "access_token": account.credential.get_token(SCOPE).token,
        }
        answer = client.send_request(HttpRequest("POST", f"https://{host}/oauth2/exchange", data=form))
        answer.raise_for_status()
        content: Json = answer.json()
        return str(content["refresh_token"])
