"""A job's secrets in the key vault: put there before the job is created, deleted with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from backends.azure_calls import Account, AzureError, translated
from backends.azureml_request import JOB_TAG, SECRET_STORE
from backends.interface import Json
from training_image.secrets import VARIABLE as SECRET_VARIABLE


def put(account: Account, job_name: str, properties: Json, secrets: Mapping[str, SecretStr]) -> None:
    """Put the values under the names that the job's variables give. Raises BackendError."""
    for name, client, key in _named(account, properties):
        if name in secrets:
            _set(client, key, secrets[name].get_secret_value(), {JOB_TAG: job_name})


def delete(account: Account, properties: Json) -> None:
    """Delete them; a vault keeps what was deleted for some time, under its own rules."""
    _call_each(account, properties, lambda client, key: client.begin_delete_secret(key))


def look(account: Account, properties: Json) -> None:
    """Raises BackendError where the vault cannot be reached, or tells nothing of a secret that is not there yet."""
    _call_each(account, properties, lambda client, key: client.get_secret(key))


def _call_each(account: Account, properties: Json, call: Callable[[Any, str], object]) -> None:
    """Call for each secret, by the client of its vault and its name there; one that is not there is passed over."""
    for _, client, key in _named(account, properties):
        try:
            with translated():
                call(client, key)
        except AzureError as error:
            if error.status != 404:
                raise


def _named(account: Account, properties: Json) -> Iterator[tuple[str, Any, str]]:
    """The secret's own name, the client of its vault, and its name there."""
    for variable, value in properties["environmentVariables"].items():
        if variable.startswith(SECRET_VARIABLE):
            vault, _, key = value.removeprefix(SECRET_STORE).partition("/secrets/")
            yield variable.removeprefix(SECRET_VARIABLE), account.secrets(vault), key


def _set(client: Any, key: str, value: str, tags: dict[str, str]) -> None:
    try:
        with translated():
            client.set_secret(key, value, tags=tags)
    except AzureError as error:
        if error.status != 409:
            raise
        # deleted a while ago with a job of the same name that could not be created, and kept by the vault
        with translated():
            client.begin_recover_deleted_secret(key).wait()
            client.set_secret(key, value, tags=tags)
