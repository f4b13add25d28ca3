"""SageMaker's training machines with GPUs: which has what, and what it cost when the list was read.

Prices: on-demand training in us-east-1 from AWS's public price list, read 2026-09-27; None where none was seen.
GPUs: AWS's instance type pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from backends.interface import BackendError, Offer, Resources

AS_OF = "2026-09-27"
SOURCE = "AWS price list for SageMaker training, us-east-1"
PRICED_REGION = "us-east-1"


class Machine(NamedTuple):
    """One machine type."""

    name: str
    gpu: str
    gpus: int
    usd_per_hour: float | None


MACHINES = (
    Machine("ml.g4dn.xlarge", "T4", 1, 0.7364),
    Machine("ml.g6.xlarge", "L4", 1, 1.127),
    Machine("ml.g6.2xlarge", "L4", 1, 1.222),
    Machine("ml.g5.xlarge", "A10G", 1, 1.408),
    Machine("ml.g5.2xlarge", "A10G", 1, 1.515),
    Machine("ml.g6e.xlarge", "L40S", 1, 2.61),
    Machine("ml.g6e.2xlarge", "L40S", 1, 2.80),
    Machine("ml.g6.12xlarge", "L4", 4, 5.752),
    Machine("ml.g5.12xlarge", "A10G", 4, 7.09),
    Machine("ml.p5.4xlarge", "H100", 1, 7.912),
    Machine("ml.g6e.12xlarge", "L40S", 4, 13.12),
    Machine("ml.g6.48xlarge", "L4", 8, 16.688),
    Machine("ml.g5.48xlarge", "A10G", 8, 20.36),
    Machine("ml.p4d.24xlarge", "A100", 8, 25.25),
    Machine("ml.p4de.24xlarge", "A100-80GB", 8, 31.56),
    Machine("ml.g6e.48xlarge", "L40S", 8, 37.66),
    Machine("ml.p5.48xlarge", "H100", 8, 63.30),
)
"""By price; of several with one GPU the first is taken for ``resources.gpu``."""
DEFAULT = "ml.g5.xlarge"
"""Taken where the job names neither GPU nor machine: an A10G with 24 GB, the most widely granted of its size."""


def machine_for(resources: Resources) -> str:
    """The machine type that a job asks for. Raises BackendError for a GPU that SageMaker does not rent."""
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


def offers(backend: str, region: str | None) -> Iterable[Offer]:
    """The machines; where another region is asked for the price is not known."""
    priced = region in (None, PRICED_REGION)
    for machine in MACHINES:
        yield Offer(
            backend=backend,
            machine=machine.name,
            region=region or PRICED_REGION,
            gpu=machine.gpu,
            gpu_count=machine.gpus,
            usd_per_hour=machine.usd_per_hour if priced else None,
            kind="snapshot",
            as_of=AS_OF,
            source=SOURCE,
        )
