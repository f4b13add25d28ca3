"""Secrets of a job in Secret Manager, readable by the job's service account alone, for as long as the job is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from backends.google_calls import Account, GoogleError, call
from training_image.secrets import VARIABLE

STORE = "google:"
"""Beginning of the value of a variable that names a secret, see `training_image.secrets`."""
READER = "roles/secretmanager.secretAccessor"
ALREADY_EXISTS, NOT_FOUND = 409, 404


def secret_id(job_name: str, name: str) -> str:
    """The id of a job's secret: letters, digits, hyphens and underscores, as Secret Manager wants it."""
    return f"ftlaunch-{job_name}-{name}"


def variables(project: str, job_name: str, names: Iterable[str]) -> dict[str, str]:
    """The container's variables that name the job's secrets."""
    return {
        f"{VARIABLE}{name}": f"{STORE}projects/{project}/secrets/{secret_id(job_name, name)}/versions/latest"
        for name in names
    }


def put(
    account: Account, job_name: str, secrets: Mapping[str, SecretStr], reader: str, labels: Mapping[str, str]
) -> None:
    """Store the values and let the service account ``reader`` read them, and no other secret."""
    client, parent = account.secrets, f"projects/{account.project}"
    for name, value in secrets.items():
        identifier = secret_id(job_name, name)
        secret = {"replication": {"automatic": {}}, "labels": dict(labels)}
        try:
            call(client.create_secret, request={"parent": parent, "secret_id": identifier, "secret": secret})
        except GoogleError as error:
            if error.code != ALREADY_EXISTS:
                raise
        full = f"{parent}/secrets/{identifier}"
        policy = {"bindings": [{"role": READER, "members": [f"serviceAccount:{reader}"]}]}
        call(client.set_iam_policy, request={"resource": full, "policy": policy})
        payload = {"data": value.get_secret_value().encode()}
        call(client.add_secret_version, request={"parent": full, "payload": payload})


def delete(account: Account, environment: Mapping[str, str]) -> None:
    """Delete the secrets that the variables name; one that is gone is no error."""
    for variable, value in environment.items():
        if variable.startswith(VARIABLE) and value.startswith(STORE):
            name = value.removeprefix(STORE).partition("/versions/")[0]
            try:
                call(account.secrets.delete_secret, request={"name": name})
            except GoogleError as error:
                if error.code != NOT_FOUND:
                    raise
