"""SageMaker's training machines with GPUs that ``resources.gpu`` chooses from, by AWS's instance type pages.

What they cost stands in `backends.prices`.
"""

from __future__ import annotations

from typing import NamedTuple

from backends.interface import BackendError, Resources


class Machine(NamedTuple):
    """One machine type."""

    name: str
    gpu: str
    gpus: int


MACHINES = (
    Machine("ml.g4dn.xlarge", "T4", 1),
    Machine("ml.g6.xlarge", "L4", 1),
    Machine("ml.g6.2xlarge", "L4", 1),
    Machine("ml.g5.xlarge", "A10G", 1),
    Machine("ml.g5.2xlarge", "A10G", 1),
    Machine("ml.g6e.xlarge", "L40S", 1),
    Machine("ml.g6e.2xlarge", "L40S", 1),
    Machine("ml.g6.12xlarge", "L4", 4),
    Machine("ml.g5.12xlarge", "A10G", 4),
    Machine("ml.p5.4xlarge", "H100", 1),
    Machine("ml.g6e.12xlarge", "L40S", 4),
    Machine("ml.g6.48xlarge", "L4", 8),
    Machine("ml.g5.48xlarge", "A10G", 8),
    Machine("ml.p4d.24xlarge", "A100", 8),
    Machine("ml.p4de.24xlarge", "A100-80GB", 8),
    Machine("ml.g6e.48xlarge", "L40S", 8),
    Machine("ml.p5.48xlarge", "H100", 8),
)
"""By price when the list was made; of several with one GPU the first is taken for ``resources.gpu``."""
DEFAULT = "ml.g5.xlarge"
"""Taken where the job names neither GPU nor machine: an A10G with 24 GB, the most widely granted of its size."""


def machine_for(resources: Resources) -> str:
    """The machine type that a job asks for. Raises BackendError for a GPU that SageMaker does not rent, and for a
    machine with accelerators that are no GPUs: the image has nothing for them."""
    if resources.machine and resources.machine.startswith("ml.trn"):
        message = f"{resources.machine} has AWS's own accelerators, which the training image cannot use"
        raise BackendError(message, hint=f"take a machine with a GPU: resources.machine: {DEFAULT}")
    if resources.machine:
        return resources.machine
    if resources.gpu is None:
        return DEFAULT
    wanted = resources.gpu.upper().removeprefix("NVIDIA-").removeprefix("NVIDIA ")
    for machine in MACHINES:
        if machine.gpu.upper() == wanted:
            return machine.name
    known = ", ".join(sorted({machine.gpu for machine in MACHINES}))
    raise BackendError(
        f"no machine with the GPU {resources.gpu!r} is known at SageMaker",
        hint=f"resources.gpu is one of {known}; or name the machine: resources.machine: ml.g5.2xlarge",
    )


def has_gpu(machine: str) -> bool:
    """Whether a machine type has NVIDIA GPUs: the families g (graphics) and p (training), by AWS's naming."""
    return machine.removeprefix("ml.").startswith(("g", "p"))
