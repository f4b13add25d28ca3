"""Optimizers whose state is in eight bits, through checkpoints: the trajectory goes on as if nothing had been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.invariance import REFERENCE, Case
from tests.training.test_model import make_samples, make_spec
from training_image import model as models


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw_8bit"])
@pytest.mark.parametrize("variant", ["rslora", "loraplus"])
def test_a_stop_changes_nothing_whatever_the_optimizer(tmp_path: Path, optimizer: str, variant: str) -> None:
    """At rank 64 the state of every weight is large enough for eight bits, and none for bitsandbytes' pages, which a
    CPU does not have."""
    spec = make_spec(batch_size=8, epochs=3.0, rank=64, optimizer=optimizer, variant=variant)
    setting = models.choose(spec, Path())
    case = Case(spec, setting, models.load_base(setting), make_samples(16), pad=2, rate=3e-3, chunk=10)
    whole = case.trajectory(tmp_path / "whole", **REFERENCE)
    assert case.trajectory(tmp_path / "stopped", **REFERENCE, stop_after=2) == whole
    assert whole[-1][0] < whole[0][0]
    kept = torch.load(tmp_path / "stopped" / "checkpoints" / "step-6.pt", weights_only=True)
    types = {value.dtype for value in tensors(kept["optimizer"]["state"])}
    assert (torch.uint8 in types) == (optimizer != "adamw")


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, dict):
        return [found for each in state.values() for found in tensors(each)]
    return [state] if isinstance(state, torch.Tensor) else []
