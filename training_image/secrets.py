"""Secrets of the job, read in the container from the service's own secret store by the rights of the job's role.

``FTLAUNCH_SECRET_NAME=STORE:ID`` names where the secret NAME lies; its value goes into the environment variable NAME of
this process and nowhere else. Stores: ``aws``, AWS Secrets Manager in the region of the job; ``google``, a version in
Google's Secret Manager (``projects/P/secrets/S/versions/V``); ``keyvault``, a secret of an Azure key vault
(``https://VAULT.vault.azure.net/secrets/SECRET``); ``file``, a file that the launcher laid into the container, which is
deleted once it is read.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, TextIO, cast

from training_image.errors import InputError

VARIABLE = "FTLAUNCH_SECRET_"
"""Beginning of the variables that name secrets."""
SHORTEST = 4
"""Characters of a line of a longer secret that is hidden: a brace alone tells nothing, and stands in every log."""


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


def hide() -> None:
    """From now on what this process prints, tracebacks among it, has ``***`` in the place of the secrets' values."""
    hidden = _hidden()
    sys.stdout, sys.stderr = (cast("TextIO", _Hiding(stream, hidden)) for stream in (sys.stdout, sys.stderr))


def masked(text: str) -> str:
    """The text with every line of every secret's value as ``***``."""
    return _replaced(text, _hidden())


def _hidden() -> list[str]:
    """The lines to be hidden, the longest first.

    By the rule of `backends.local_supervisor`, which goes alone to where it shows a log.
    """
    hidden: set[str] = set()
    for key in os.environ:
        if key.startswith(VARIABLE):
            lines = [line.strip() for line in os.environ.get(key.removeprefix(VARIABLE), "").strip().splitlines()]
            hidden.update(line for line in lines if len(line) >= (SHORTEST if lines[1:] else 1))
    return sorted(hidden, key=len, reverse=True)


def _replaced(text: str, hidden: Iterable[str]) -> str:
    for line in hidden:
        text = text.replace(line, "***")
    return text


class _Hiding:
    """A text stream that masks what is written to it."""

    def __init__(self, stream: TextIO, hidden: list[str]) -> None:
        self._stream, self._hidden = stream, hidden

    def write(self, text: str) -> int:
        self._stream.write(_replaced(text, self._hidden))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _aws(name: str, identifier: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = boto3.client("secretsmanager", region_name=os.environ.get("AWS_REGION"))
        return str(client.get_secret_value(SecretId=identifier)["SecretString"])
    except (BotoCoreError, ClientError) as error:
        hint = f"Let the job's role do secretsmanager:GetSecretValue on {identifier}."
        raise InputError(f"the secret {name} cannot be read: {error}", hint=hint) from error


def _google(name: str, identifier: str) -> str:
    """By the machine's own service account, which its metadata server gives a token for; over REST."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.secretmanager import SecretManagerServiceClient

    try:
        client = SecretManagerServiceClient(transport="rest")
        return str(client.access_secret_version(name=identifier).payload.data.decode())
    except (GoogleAPICallError, GoogleAuthError) as error:
        hint = f"Let the job's service account be roles/secretmanager.secretAccessor of {identifier}."
        raise InputError(f"the secret {name} cannot be read: {error}", hint=hint) from error


def _keyvault(name: str, identifier: str) -> str:
    """By the machine's managed identity; of several that it has, the one that the job is to act as."""
    from azure.core.exceptions import AzureError
    from azure.identity import ManagedIdentityCredential
    from azure.keyvault.secrets import SecretClient

    vault, _, key = identifier.partition("/secrets/")
    try:
        credential = ManagedIdentityCredential(client_id=os.environ.get("DEFAULT_IDENTITY_CLIENT_ID"))
        return SecretClient(vault, credential).get_secret(key).value or ""
    except AzureError as error:
        hint = f"Let the managed identity of the job be Key Vault Secrets User of {vault}."
        raise InputError(f"the secret {name} cannot be read: {error.message}", hint=hint) from error


def _file(name: str, identifier: str) -> str:
    path = Path(identifier)
    try:
        value = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = "Start the job, or resume it, with ftlaunch, which lays the secrets into the container."
        raise InputError(f"the secret {name} cannot be read: {error.strerror}", hint=hint) from error
    with contextlib.suppress(OSError):  # a folder that cannot be written keeps it
        path.unlink()
    return value


STORES: dict[str, Callable[[str, str], str]] = {"aws": _aws, "google": _google, "keyvault": _keyvault, "file": _file}
