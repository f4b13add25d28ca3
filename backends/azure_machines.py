"""Azure's virtual machines with GPUs that ``resources.gpu`` chooses from, by Azure's pages of the machine series.

What they have stands in `backends.hardware`, what they cost in `backends.prices`.
"""

from __future__ import annotations

from backends import hardware
from backends.interface import BackendError, Resources

PLACE = "azureml"
BY_PRICE = (
    "Standard_NC4as_T4_v3",
    "Standard_NV36ads_A10_v5",
    "Standard_NC24ads_A100_v4",
    "Standard_NC40ads_H100_v5",
    "Standard_ND96asr_v4",
    "Standard_ND96isr_H100_v5",
)
"""The cheapest with each kind of GPU when the list was made; the first that fits is taken for ``resources.gpu``."""
DEFAULT = "Standard_NC4as_T4_v3"
"""Taken where a serverless job names neither GPU nor machine: a T4 with 16 GB, the most widely granted."""


def machine_for(resources: Resources) -> str:
    """The machine size that a job asks for. Raises BackendError for a GPU that is not known at Azure."""
    if resources.machine:
        return resources.machine
    if resources.gpu is None:
        return DEFAULT
    known = hardware.machines()
    for name in BY_PRICE:
        if hardware.matches(resources.gpu, known[PLACE, name].gpu):
            return name
    names = ", ".join(dict.fromkeys(known[PLACE, name].gpu for name in BY_PRICE))
    raise BackendError(
        f"no machine with the GPU {resources.gpu!r} is known at Azure ML",
        hint=f"resources.gpu is one of {names}; or name the machine: resources.machine: {DEFAULT}",
    )


def has_gpu(machine: str) -> bool:
    """Whether a machine size has GPUs: the families N (NC, ND, NV), by Azure's naming."""
    return machine.lower().removeprefix("standard_").startswith("n")


def gpus(machine: str) -> int:
    """The GPUs of a machine size; 1 where it is not in the list, for one process is what any machine can run."""
    found = hardware.machines().get((PLACE, as_listed(machine)))
    return found.gpus if found else 1


def as_listed(machine: str) -> str:
    """A machine size as the list writes it; Azure's own letters may be large ones, and do not count."""
    names = (name for place, name in hardware.machines() if place == PLACE)
    return next((name for name in names if name.lower() == machine.lower()), machine)
