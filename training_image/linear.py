"""Linear layers in fp32 on a CPU through oneDNN, where it is faster than what torch takes by itself.

torch multiplies fp32 matrices by MKL, which on processors that are not Intel's keeps to AVX2; oneDNN, which torch
brings along too, uses AVX-512 on all that have it: 110 against 250 GFLOP/s a core on an AMD EPYC of family 26. The sums
are the same ones in fp32, added up in another order.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FEW = 8
"""Below so many rows, a call of oneDNN costs more than it gains."""


def quicken(model: Any) -> Any:
    """Let a model's plain linear layers, those of an adapter too, take oneDNN where it is faster; gives the model."""
    if model.device.type == "cpu" and gains(torch.backends.cpu.get_cpu_capability(), _vendor()):
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                module.__class__ = OneDnnLinear
    return model


def gains(capability: str, vendor: str) -> bool:
    """Whether oneDNN is faster on a processor. ``capability``: torch's word for its vector units."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and capability == "AVX512" and vendor != "GenuineIntel"


@cache
def _vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "GenuineIntel"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


class OneDnnLinear(torch.nn.Linear):
    """A linear layer that multiplies many fp32 rows by oneDNN, and all else as any other."""

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if not plain or input.numel() < _FEW * self.in_features or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        made: Tensor = _Product.apply(input, self.weight)  # type: ignore[no-untyped-call]
        return made if self.bias is None else made + self.bias


class _Product(torch.autograd.Function):
    """``input @ weight.T``; the input is kept only where the weight is trained."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, weight)
        return _product(input, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        of_input = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        of_weight = _product(grad.flatten(0, -2).t(), input.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None
        return of_input, of_weight


def _product(left: Tensor, right: Tensor) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return made
