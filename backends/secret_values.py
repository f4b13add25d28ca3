"""Values of a job's secrets: from the environment, else from the keyring. They go nowhere but to the job."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from backends import local_supervisor
from training_image.errors import InputError

SERVICE = "ftlaunch"
"""Under which the keyring keeps them: ``keyring set ftlaunch NAME``."""


Secrets = Mapping[str, SecretStr]
"""Values by name."""


def known(names: Iterable[str]) -> dict[str, SecretStr]:
    """The values that there are, by name."""
    found = {name: _value(name) for name in names}
    return {name: SecretStr(value) for name, value in found.items() if value}


def required(names: Iterable[str]) -> dict[str, SecretStr]:
    """The values of all names. Raises InputError that lists those there are none for."""
    wanted = list(names)
    found = known(wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        hint = f"export {missing[0]}=..., or: keyring set {SERVICE} {missing[0]}"
        raise InputError(f"no value for the secret {', '.join(missing)}", hint=hint)
    return found


def mask(text: str, secrets: Secrets) -> str:
    """The text with every line of every secret's value as ``***``."""
    return local_supervisor.masked(text, [value.get_secret_value() for value in secrets.values()])


def _value(name: str) -> str | None:
    value = os.environ.get(name)
    if value or importlib.util.find_spec("keyring") is None:
        return value
    keyring = importlib.import_module("keyring")
    try:
        found: str | None = keyring.get_password(SERVICE, name)
    except keyring.errors.KeyringError:  # there is none on this machine, or it is locked
        return None
    return found
