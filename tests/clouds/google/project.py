"""A project in which a user has the role of docs/ and no more, and a process that is logged in as that user."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.clouds.google import Google, loopback_google
from tests.clouds.loopback import own_folder

ROLES = Path(__file__).parents[3] / "docs"
USER = "launcher@example.com"
JOB_ACCOUNT = "training@loopback-project.iam.gserviceaccount.com"
"""The service account that jobs run as."""


NOTEBOOK_ACCOUNT = "notebooks@loopback-project.iam.gserviceaccount.com"
"""The service account that notebooks run as, with the right to the bucket's objects that docs/ names."""
OBJECT_USER = {f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list")}
"""As much of roles/storage.objectUser as there is here."""


def permissions(backend: str = "vertex") -> set[str]:
    """Those of the backend's shipped role."""
    return set(yaml.safe_load((ROLES / f"{backend}-role.yaml").read_text())["includedPermissions"])


@contextlib.contextmanager
def logged_in(home: Path, backend: str = "vertex") -> Iterator[Google]:
    """While this lasts, this process and its children reach the project, and no host outside of it; fails if one was
    asked for. ``home``: the launcher's own folder; ``backend``: whose role the user has."""
    with own_folder("google") as folder, loopback_google(folder) as cloud:
        cloud.accounts.permissions[USER] = permissions(backend)
        cloud.accounts.permissions[NOTEBOOK_ACCOUNT] = OBJECT_USER
        cloud.accounts.acting |= {JOB_ACCOUNT: {USER}, NOTEBOOK_ACCOUNT: {USER}}
        cloud.front.forget(f"{cloud.project}/ftlaunch/ftlaunch")
        login = folder / "login.json"
        login.write_text(json.dumps(cloud.tokens.user_file(USER)))
        told = {"GOOGLE_APPLICATION_CREDENTIALS": str(login), "GOOGLE_CLOUD_PROJECT": cloud.project}
        with cloud.reached_from_here(home, told, ("GOOGLE_", "GCLOUD_", "GCE_")):
            yield cloud
