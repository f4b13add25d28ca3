"""The image on its way to ECR, by the engine of this machine."""

from __future__ import annotations

import base64
import re
from typing import Any, NamedTuple

from backends.aws_calls import Account, AwsError, call
from backends.interface import BackendError, Reason

BUILD = "ftlaunch image build makes it"
_URI = re.compile(
    r"(?P<host>(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?)/(?P<rest>.+)"
)


class EcrImage(NamedTuple):
    """A name in ECR."""

    host: str
    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None


def parse(uri: str) -> EcrImage:
    """Take a name apart. Raises BackendError for one that is not in ECR."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise BackendError(f"{uri} is not an image in ECR", hint="SageMaker trains only images that are in ECR")
    name, _, digest = match["rest"].partition("@")
    repository, _, tag = name.partition(":")
    tag_or_none = tag or (None if digest else "latest")
    return EcrImage(match["host"], match["account"], match["region"], repository, tag_or_none, digest or None)


def digest(account: Account, uri: str) -> str | None:
    """The digest that the registry has under the name; None if it is not there."""
    image = parse(uri)
    wanted = {"imageDigest": image.digest} if image.digest else {"imageTag": image.tag}
    ecr = Account(image.region, account.profile).client("ecr")
    try:
        found = call(ecr.describe_images, registryId=image.account, repositoryName=image.repository, imageIds=[wanted])
    except AwsError as error:
        if error.code in ("RepositoryNotFoundException", "ImageNotFoundException"):
            return None
        raise
    return str(found["imageDetails"][0]["imageDigest"])


def send(account: Account, local: str | None, uri: str) -> str:
    """Push the local image under that name unless it is there; its digest. Makes the repository where it is missing,
    with tags that cannot be moved, so that a tag means one image for ever."""
    found = digest(account, uri)
    if found is not None:
        return found
    image = parse(uri)
    if local is None or local == uri:
        raise BackendError(f"there is no image {uri}", hint="push it, or correct its name", reason=Reason.BAD_IMAGE)
    ecr = account.client("ecr")
    try:
        call(ecr.create_repository, repositoryName=image.repository, imageTagMutability="IMMUTABLE")
    except AwsError as error:
        if error.code != "RepositoryAlreadyExistsException":
            raise
    _push(local, image, _login(ecr))
    found = digest(account, uri)
    if found is None:
        raise BackendError(f"{uri} was pushed, and is not there", hint="try again", reason=Reason.BAD_IMAGE)
    return found


def _login(ecr: Any) -> dict[str, str]:
    token = call(ecr.get_authorization_token)["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    return {"username": user, "password": password}


def _push(local: str, image: EcrImage, login: dict[str, str]) -> None:
    import docker
    from docker.errors import DockerException, ImageNotFound

    name = f"{image.host}/{image.repository}"
    try:
        client = docker.from_env(timeout=600)
        client.images.get(local).tag(name, image.tag)
        try:
            for line in client.api.push(name, image.tag, stream=True, decode=True, auth_config=login):
                if "error" in line:
                    raise BackendError(
                        f"pushing {name}:{image.tag} failed: {line['error']}",
                        hint="try again; what has arrived is not sent again",
                        reason=Reason.BAD_IMAGE,
                    )
        finally:
            client.images.remove(f"{name}:{image.tag}")  # only the name; the image stays under its own
            client.close()
    except ImageNotFound as error:
        message = f"the engine of this machine has no image {local}"
        raise BackendError(message, hint=BUILD, reason=Reason.BAD_IMAGE) from error
    except DockerException as error:
        hint = "start a Docker engine, or name an image that is in ECR already: backends.sagemaker.image"
        raise BackendError(f"the image cannot be pushed: {error}", hint=hint, reason=Reason.BAD_IMAGE) from error
