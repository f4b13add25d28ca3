"""oneDNN's products and gradients are those of torch's own, and are taken where they are faster."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training_image import linear
from training_image import model as models
from training_image.linear import OneDnnLinear, gains, quicken

from .test_model import make_spec


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(24, 40), (1, 24, 40), (2, 12, 40), (3, 40), (0, 40)])
def test_products_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(40, 56, bias)
    fast = OneDnnLinear(40, 56, bias)
    fast.load_state_dict(plain.state_dict())
    given = torch.randn(shape)
    found = []
    for layer in (plain, fast):
        x = given.clone().requires_grad_()
        made = layer(x)
        (made * torch.arange(56.0)).sum().backward()
        found.append((made.detach(), x.grad, *(weight.grad for weight in layer.parameters())))
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-4)


def test_a_transposed_input_and_a_frozen_weight() -> None:
    torch.manual_seed(0)
    fast = OneDnnLinear(24, 56, bias=False).requires_grad_(requires_grad=False)
    x = torch.randn(24, 40).t().requires_grad_()
    made = fast(x)
    made.sum().backward()
    torch.testing.assert_close(made, x @ fast.weight.t(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, fast.weight.sum(0).expand(40, -1), rtol=1e-5, atol=1e-5)
    assert fast.weight.grad is None


def test_half_precision_is_left_to_torch() -> None:
    fast = OneDnnLinear(24, 56, dtype=torch.bfloat16)
    assert fast(torch.randn(16, 24, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert OneDnnLinear(24, 56)(torch.randn(16, 24)).dtype == torch.bfloat16


@pytest.mark.parametrize("capability", ["DEFAULT", "AVX2", "AVX512"])
@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD", ""])
def test_it_is_taken_where_it_is_faster(capability: str, vendor: str) -> None:
    there = torch.backends.mkldnn.is_available()
    assert gains(capability, vendor) == (there and capability == "AVX512" and vendor != "GenuineIntel")


@pytest.mark.parametrize("faster", [False, True])
def test_all_plain_linear_layers_of_base_and_adapter_take_it(
    faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "gains", lambda capability, vendor: faster)
    spec = make_spec()
    model = models.add_adapter(models.load_base(models.choose(spec, tmp_path)), spec)
    kinds = {type(module) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    assert kinds == {OneDnnLinear if faster else torch.nn.Linear}
    assert quicken(model) is model
