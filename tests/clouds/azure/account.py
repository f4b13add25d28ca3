"""A subscription in which a service principal has the role of docs/ and no more, and a process logged in as it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.clouds.azure import Azure, loopback_azure
from tests.clouds.loopback import own_folder

ROLE = Path(__file__).parents[3] / "docs" / "azureml-role.json"
MACHINE = "Standard_DS3_v2"
CLUSTER = "low-priority"
"""A compute cluster that is there."""
OURS = ("AZURE_", "MSI_", "IDENTITY_")


@contextlib.contextmanager
def logged_in(home: Path) -> Iterator[Azure]:
    """While this lasts, this process and its children reach the subscription, and no host outside of it; fails if one
    was asked for. ``home``: the launcher's own folder."""
    with own_folder("azure") as folder, loopback_azure(folder) as cloud:
        cloud.rights.assign_file("launcher", ROLE)
        cloud.arm.add_cluster(CLUSTER, MACHINE, 4, low_priority=True)
        cloud.registry.front.forget("ftlaunch")
        with cloud.reached_from_here(home, cloud.entra.add_application("launcher"), OURS):
            yield cloud
