"""The base as the device takes it, and the adapter on it: quantised or written out, saved and loaded afresh."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from tests.tiny_model import MODEL
from training_image import model as models
from training_image.data.examples import IGNORED, Sample
from training_image.errors import InputError
from training_image.outputs import Outputs
from training_image.spec import Spec
from training_image.train import Hooks, Trainer, plan_steps

from .loop import hooks


def make_spec(**train: Any) -> Spec:
    return Spec.model_validate(
        {
            "job": "model-00000000",
            "model": {"id": str(MODEL)},
            "data": {"train": "train.jsonl"},
            "task": {"type": "classification"},
            "train": {"rank": 4, "epochs": 2.0, "batch_size": 4, "learning_rate": 3e-3, "method": "qlora"} | train,
        }
    )


def make_samples(count: int = 12) -> list[Sample]:
    generator = torch.Generator().manual_seed(7)
    made = []
    for index in range(count):
        length = int(torch.randint(6, 24, (1,), generator=generator))
        ids = [11, 12, 13, 14, *torch.randint(50, 500, (length,), generator=generator).tolist(), 2]
        made.append(Sample(str(index), ids, [IGNORED] * (len(ids) - 3) + ids[-3:]))
    return made


def train(base: Any, spec: Spec, tmp_path: Path) -> tuple[Any, list[float]]:
    """The trained model, and the losses of all steps."""
    lines: list[dict[str, float]] = []
    setting = models.choose(spec, tmp_path)
    trainer = Trainer(models.add_adapter(base, spec), make_samples(), setting, spec.train, 3e-3, pad=2)
    wiring: Hooks = hooks(tmp_path, lines)
    trainer.fit(plan_steps(spec.train, 12, None), wiring, trainer.restore(wiring.checkpoints))
    return trainer.model, [line["train/loss"] for line in lines]


def digest(model: Any) -> str:
    state = get_peft_model_state_dict(model)
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def test_four_bits_and_the_weights_they_stand_for_give_the_same_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec()
    setting = models.choose(spec, tmp_path)
    written_out, losses = train(models.load_base(setting), spec, tmp_path / "one")
    monkeypatch.setattr(models, "_fits_dequantised", lambda model: False)
    base = models.load_base(setting)
    assert any(type(module).__name__ == "Linear4bit" for module in base.modules())
    quantised, again = train(base, spec, tmp_path / "two")
    assert max(abs(one - two) for one, two in zip(losses, again, strict=True)) < 1e-5
    one, two = (get_peft_model_state_dict(model) for model in (written_out, quantised))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


def test_the_same_seed_gives_the_same_adapter_and_another_does_not(tmp_path: Path) -> None:
    found = []
    for place, seed in enumerate((0, 0, 1)):
        spec = make_spec(seed=seed)
        found.append(digest(train(models.load_base(models.choose(spec, tmp_path)), spec, tmp_path / str(place))[0]))
    assert found[0] == found[1] != found[2]


def test_nothing_but_the_adapter_is_trained_and_that_in_single_precision(tmp_path: Path) -> None:
    spec = make_spec().model_copy(update={"model": make_spec().model.model_copy(update={"dtype": "bf16"})})
    base = models.load_base(models.choose(spec, tmp_path))
    assert base.get_input_embeddings().weight.dtype == torch.bfloat16  # not lifted
    model = models.add_adapter(base, spec)
    for name, weight in model.named_parameters():
        assert weight.requires_grad == ("lora_" in name), name
        assert not weight.requires_grad or weight.dtype == torch.float32
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 7 * base.config.num_hidden_layers
    assert all(layer.scaling["default"] == pytest.approx(16 / 4**0.5) for layer in layers)  # rsLoRA


def test_the_adapter_from_its_files_is_the_one_in_memory(tmp_path: Path) -> None:
    spec = make_spec()
    setting = models.choose(spec, tmp_path)
    model, _ = train(models.load_base(setting), spec, tmp_path / "run")
    model.eval()
    ids = torch.tensor([[11, 12, 13, 60, 70, 80]])
    with torch.no_grad():
        before = model(ids).logits
        folder = Outputs(tmp_path / "out", known=False).adapter(model, models.load_tokenizer(setting), None, spec)
        after = models.load_adapter(models.load_base(setting), folder)(ids).logits
        again = models.load_adapter(model.unload(), folder)(ids).logits
        untuned = models.load_base(setting)(ids).logits
    assert float((before - after).abs().max()) == 0.0
    assert float((before - again).abs().max()) == 0.0
    assert float((before - untuned).abs().max()) > 0.0


def test_the_size_of_the_adapter_is_known_beforehand(tmp_path: Path) -> None:
    spec = make_spec()
    base = models.load_base(models.choose(spec, tmp_path))
    told = models.adapter_bytes(base, spec.train.rank)
    model = models.add_adapter(base, spec)
    assert told == sum(4 * weight.numel() for weight in model.parameters() if weight.requires_grad)


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_model_that_cannot_be_loaded(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "broken"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content)
    spec = make_spec().model_copy(update={"model": make_spec().model.model_copy(update={"id": str(folder)})})
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_base(models.choose(spec, tmp_path))


def test_weights_that_were_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for path in MODEL.iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    spec = make_spec().model_copy(update={"model": make_spec().model.model_copy(update={"id": str(folder)})})
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_base(models.choose(spec, tmp_path))
