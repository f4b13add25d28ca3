"""Secrets of the job, read in the container from the service's own secret store by the rights of the job's role.

``FTLAUNCH_SECRET_NAME=STORE:ID`` names where the secret NAME lies; its value goes into the environment variable NAME of
this process and nowhere else. Stores: ``aws``, AWS Secrets Manager in the region of the job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping

from training_image.errors import InputError

VARIABLE = "FTLAUNCH_SECRET_"
"""Beginning of the variables that name secrets."""


def load(environment: MutableMapping[str, str]) -> list[str]:
    """Put the named secrets into the environment; gives their names.

    Raises InputError, which holds no value, for one that cannot be read. Processes that torchrun starts inherit what
    their parent has read.
    """
    names = sorted(key for key in environment if key.startswith(VARIABLE))
    for key in names:
        store, _, identifier = environment[key].partition(":")
        name = key.removeprefix(VARIABLE)
        if store not in STORES:
            raise InputError(f"the secret {name} is in a store of the unknown kind {store!r}")
        if name not in environment:
            environment[name] = STORES[store](name, identifier)
    return [key.removeprefix(VARIABLE) for key in names]


def _aws(name: str, identifier: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = boto3.client("secretsmanager", region_name=os.environ.get("AWS_REGION"))
        return str(client.get_secret_value(SecretId=identifier)["SecretString"])
    except (BotoCoreError, ClientError) as error:
        hint = f"Let the job's role do secretsmanager:GetSecretValue on {identifier}."
        raise InputError(f"the secret {name} cannot be read: {error}", hint=hint) from error


STORES: dict[str, Callable[[str, str], str]] = {"aws": _aws}
