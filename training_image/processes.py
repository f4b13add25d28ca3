"""Several processes training one adapter: each takes a part of every step's micro-batches, the gradients are summed.

The adapter is small, so its gradients are summed in one message after the step's last micro-batch. That is what
torch's DistributedDataParallel does under ``no_sync``, but it averages over processes and wants as many backward passes
of each; a step here has any number of micro-batches. Processes are started by torchrun, which sets RANK, WORLD_SIZE
and MASTER_ADDR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

T = TypeVar("T")


class Processes:
    """This process among all; every method is a meeting of all of them, and free where there is one."""

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size = rank, size
        self.device = device or torch.device("cpu")
        if size > 1 and not dist.is_initialized():
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            # The others wait while the first one evaluates.
            dist.init_process_group(backend, timeout=timedelta(hours=24))

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def sum(self, value: float) -> float:
        """The sum over all processes."""
        if self.alone:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def any(self, value: bool) -> bool:
        """Whether it is so in any process, so that all decide alike."""
        return self.sum(float(value)) > 0

    def most(self, value: int) -> int:
        """The largest value of all processes."""
        if self.alone:
            return value
        largest = torch.tensor(value, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def of_first(self, value: float) -> float:
        """The first process's value."""
        return self.sum(value if self.first else 0.0)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum the gradients over all processes, in place; one without a gradient counts as zero."""
        if self.alone:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def from_first(self, make: Callable[[], T]) -> T:
        """Make a value in the first process and give it to all."""
        if self.alone:
            return make()
        box: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return cast("T", box[0])
