"""The image on its way to ECR, by the engine of this machine."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple

from backends import image_push
from backends.aws_calls import Account, AwsError, call
from backends.interface import BackendError

_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<rest>.+)"
)


class EcrImage(NamedTuple):
    """A name in ECR."""

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
    return EcrImage(match["account"], match["region"], repository, tag_or_none, digest or None)


def digest(account: Account, uri: str) -> str | None:
    """The digest that the registry has under the name; None if it is not there."""
    image = parse(uri)
    wanted = {"imageDigest": image.digest} if image.digest else {"imageTag": image.tag}
    there = account if image.region == account.region else Account(image.region, account.profile)
    ecr = there.client("ecr")
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
    return image_push.send(local, uri, lambda: digest(account, uri), lambda: _log_in(account, parse(uri).repository))


def _log_in(account: Account, repository: str) -> dict[str, str]:
    """Make the repository where it is missing; gives username and password."""
    ecr = account.client("ecr")
    try:
        call(ecr.create_repository, repositoryName=repository, imageTagMutability="IMMUTABLE")
    except AwsError as error:
        if error.code != "RepositoryAlreadyExistsException":
            raise
    token = call(ecr.get_authorization_token)["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    return {"username": user, "password": password}
