"""Which machine has which GPU, and what a GPU can do: our own table, against which every price is checked.

Public catalogues were seen to give an 8-GPU machine 12 GPUs and a B200 80 GB, so no price list is believed in this.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("hardware.csv")
"""Machine types with GPUs, from the services' own pages of machine types."""


class Gpu(NamedTuple):
    """One GPU."""

    name: str
    usable_gib: float
    """Memory that a program finds, in GiB; less than the name says (error correction, driver)."""
    tflops: float
    """Dense tensor peak with 32-bit accumulation, in bf16 (fp16 where there is no bf16): NVIDIA's data sheets."""
    gb_per_second: float
    """Memory bandwidth."""
    bf16: bool
    marks: tuple[str, ...]
    """Words of which all stand in the driver's name of it, such as ``NVIDIA A100-SXM4-80GB``."""


GPUS = (
    Gpu("T4", 14.6, 65.0, 320, False, ("T4",)),
    Gpu("V100-16GB", 15.8, 125.0, 900, False, ("V100",)),
    Gpu("L4", 22.0, 121.0, 300, True, ("L4",)),
    Gpu("A10G", 22.0, 70.0, 600, True, ("A10G",)),
    Gpu("A10", 22.0, 125.0, 600, True, ("A10",)),
    Gpu("L40S", 44.4, 362.0, 864, True, ("L40S",)),
    Gpu("A100-40GB", 39.4, 312.0, 1555, True, ("A100", "40GB")),
    Gpu("A100-80GB", 79.2, 312.0, 2039, True, ("A100", "80GB")),
    Gpu("H100-80GB", 79.1, 989.0, 3350, True, ("H100", "80GB")),
    Gpu("H100-NVL-94GB", 93.0, 835.0, 3900, True, ("H100", "NVL")),
    Gpu("H200-141GB", 139.8, 989.0, 4800, True, ("H200",)),
    Gpu("RTX-PRO-6000", 94.9, 503.0, 1597, True, ("PRO", "6000")),
    Gpu("RTX3090", 23.6, 71.0, 936, True, ("3090",)),
    Gpu("RTX4080", 15.6, 97.5, 717, True, ("4080",)),
    Gpu("RTX4090", 23.5, 165.2, 1008, True, ("4090",)),
    Gpu("A6000", 47.4, 154.8, 768, True, ("A6000",)),
)


class Machine(NamedTuple):
    """One machine type of one place."""

    place: str
    """Name of the backend."""
    name: str
    gpu: str
    """A name of `GPUS`."""
    gpus: int
    vcpus: int | None
    ram_gib: float | None


@cache
def machines() -> dict[tuple[str, str], Machine]:
    """All machine types by place and name."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        found = [
            Machine(
                row["place"],
                row["machine"],
                row["gpu"],
                int(row["gpus"]),
                int(row["vcpus"]) if row["vcpus"] else None,
                float(row["ram_gib"]) if row["ram_gib"] else None,
            )
            for row in csv.DictReader(file)
        ]
    return {(machine.place, machine.name): machine for machine in found}


def gpu(name: str) -> Gpu | None:
    """A GPU by our name of it or by its driver's; None for one that is not in the table."""
    wanted = name.upper()
    exact = next((each for each in GPUS if each.name == wanted), None)
    if exact is not None:
        return exact
    words = set(wanted.replace("-", " ").split())
    return next((each for each in GPUS if words.issuperset(each.marks)), None)


def matches(asked: str, name: str) -> bool:
    """Whether a GPU is what a job file's ``resources.gpu`` asks for: ``A100`` is either of the two."""
    wanted = asked.upper().removeprefix("NVIDIA").strip(" -").replace(" ", "-")
    return name.upper() == wanted or name.upper().startswith(f"{wanted}-")
