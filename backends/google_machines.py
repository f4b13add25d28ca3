"""Vertex AI's training machines: which accelerators each has or takes, by Google's pages on machine types.

What they cost stands in `backends.prices`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from backends import hardware
from backends.interface import BackendError, Resources

GPUS: dict[str, str] = {
    "NVIDIA_TESLA_T4": "T4",
    "NVIDIA_L4": "L4",
    "NVIDIA_TESLA_A100": "A100-40GB",
    "NVIDIA_A100_80GB": "A100-80GB",
    "NVIDIA_H100_80GB": "H100-80GB",
}
"""The GPU's name by the API's AcceleratorType."""
BUILT_IN: tuple[tuple[str, str, int | None], ...] = (
    (r"g2-standard-(?:4|8|12|16|32)", "NVIDIA_L4", 1),
    (r"g2-standard-24", "NVIDIA_L4", 2),
    (r"g2-standard-48", "NVIDIA_L4", 4),
    (r"g2-standard-96", "NVIDIA_L4", 8),
    (r"a2-highgpu-([1248])g", "NVIDIA_TESLA_A100", None),
    (r"a2-ultragpu-([1248])g", "NVIDIA_A100_80GB", None),
    (r"a3-highgpu-([1248])g", "NVIDIA_H100_80GB", None),
)
"""Machines with GPUs of their own, which, and how many; None: as many as the name says."""
ATTACHED = re.compile(r"n1-(?:standard|highmem|highcpu)-(?P<cpus>\d+)(?:\+(?P<gpus>\d+)xT4)?")
"""Machines that T4s are attached to, or not; the number stands behind the name: ``n1-standard-8+1xT4``."""
T4_CPUS = {1: 16, 2: 32, 4: 96}
"""Most virtual CPUs of an N1 machine by the number of its T4s."""
WITHOUT_GPU = re.compile(r"(?:n1|n2|n2d|e2|c2|c2d|c3|c4|n4|m1)-[a-z]+-\d+")
NOT_ON_DEMAND = frozenset({"a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g"})
"""Rented as spot machines and by Flex-start only."""
PICKS = ("n1-standard-4+1xT4", "g2-standard-8", "a2-highgpu-1g", "a2-ultragpu-1g", "a3-highgpu-1g")
"""Of these the first one with the GPU asked for is taken where the job names no machine."""
DEFAULT = "g2-standard-8"
"""Taken where the job names neither GPU nor machine: an L4 with 24 GB."""


class Machine(NamedTuple):
    """The machine of a job."""

    name: str
    """The API's machine type."""
    accelerator: str | None
    """The API's AcceleratorType."""
    gpus: int

    @property
    def listed(self) -> str:
        """The name that prices stand under: an N1 machine's with its GPUs."""
        return f"{self.name}+{self.gpus}xT4" if self.gpus and self.name.startswith("n1-") else self.name

    @property
    def cpus(self) -> int:
        """Virtual CPUs; told by the name."""
        found = re.search(r"-(\d+)$", self.name)
        return int(found[1]) if found else 0


def machine_for(resources: Resources) -> Machine:
    """The machine that a job asks for.

    Raises BackendError for a machine or GPU that Vertex AI does not rent, or that do not go together.
    """
    asked = resources.gpu
    machine = _named(resources.machine or (DEFAULT if asked is None else _with_gpu(asked)))
    if asked is None:
        return machine
    if machine.accelerator is None and ATTACHED.fullmatch(machine.name) and hardware.matches(asked, "T4"):
        return _named(f"{machine.name}+1xT4")
    if machine.accelerator is None or not hardware.matches(asked, GPUS[machine.accelerator]):
        has = f"has {GPUS[machine.accelerator]}" if machine.accelerator else "has no GPU"
        raise BackendError(
            f"{machine.name} {has}, not {asked}",
            hint=f"leave resources.machine out for {_with_gpu(asked)}, or leave resources.gpu out",
        )
    return machine


def quota_metric(machine: Machine, interruptible: bool) -> tuple[str, int]:
    """The quota that a machine counts against, and how much of it one takes.

    ``interruptible``: spot and Flex-start have quotas of their own.
    """
    kind, used = "cpus", machine.cpus
    if machine.accelerator is not None:
        name = machine.accelerator.lower().removeprefix("nvidia_").removeprefix("tesla_")
        kind, used = f"nvidia_{name.removesuffix('_80gb') if name.startswith('h100') else name}_gpus", machine.gpus
    return f"aiplatform.googleapis.com/custom_model_training_{'preemptible_' if interruptible else ''}{kind}", used


def compute_quotas(machine: Machine) -> list[tuple[str, int]]:
    """The Compute Engine quotas that a machine counts against, which a notebook's runtime takes, and how much of each.

    H100s have a quota by family of GPUs, which is not asked for here.
    """
    quotas = {
        "cpus" if machine.name.startswith(("n1-", "e2-")) else f"{machine.name.partition('-')[0]}_cpus": machine.cpus
    }
    if machine.accelerator is not None:
        name = machine.accelerator.lower().removeprefix("nvidia_").removeprefix("tesla_")
        quotas = {} if name.startswith("h100") else {f"nvidia_{name}_gpus": machine.gpus}
        quotas["gpus_all_regions"] = machine.gpus
    return [(f"compute.googleapis.com/{name}", used) for name, used in quotas.items()]


def _named(name: str) -> Machine:
    for pattern, accelerator, gpus in BUILT_IN:
        if match := re.fullmatch(pattern, name):
            return Machine(name, accelerator, gpus or int(match[1]))
    match = ATTACHED.fullmatch(name)
    if match and match["gpus"]:
        gpus, cpus = int(match["gpus"]), int(match["cpus"])
        if cpus > T4_CPUS.get(gpus, 0):
            fitting = ", ".join(f"{number} up to {most} CPUs" for number, most in T4_CPUS.items())
            raise BackendError(f"there is no machine {name}", hint=f"an N1 machine takes T4s: {fitting}")
        return Machine(name.partition("+")[0], "NVIDIA_TESLA_T4", gpus)
    if not WITHOUT_GPU.fullmatch(name):
        hint = f"resources.machine is one like {', '.join(PICKS)}"
        raise BackendError(f"no training machine {name!r} is known at Vertex AI", hint=hint)
    return Machine(name, None, 0)


def _with_gpu(asked: str) -> str:
    for name in PICKS:
        if hardware.matches(asked, GPUS[str(_named(name).accelerator)]):
            return name
    known = ", ".join(sorted(GPUS.values()))
    raise BackendError(
        f"no machine with the GPU {asked!r} is known at Vertex AI",
        hint=f"resources.gpu is one of {known}; or name the machine: resources.machine: {DEFAULT}",
    )
