"""A merged checkpoint says what base and adapter say together, of whatever kind the adapter is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from launcher.export import _merge
from tests.training.loop import hooks
from tests.training.test_model import make_samples, make_spec
from training_image import model as models
from training_image.checkpoints import Progress
from training_image.outputs import Outputs
from training_image.train import Trainer, plan_steps

IDS = torch.tensor([[11, 12, 13, 60, 70, 80]])


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"variant": "dora"},
        {"variant": "pissa"},
        {"modules_to_save": ["embed_tokens"]},
        {"variant": "dora", "modules_to_save": ["down_proj"]},
    ],
    ids=["default", "dora", "pissa", "embed_tokens", "dora and down_proj"],
)
def test_what_is_merged_has_the_logits_of_the_adapted_model(tmp_path: Path, train: dict[str, Any]) -> None:
    spec = make_spec(**train)
    setting = models.choose(spec, tmp_path)
    model = models.add_adapter(models.load_base(setting), spec)
    models.save_initial(model, tmp_path / "initial")
    trainer = Trainer(model, make_samples(), setting, spec.train, 1e-2, pad=2)
    trainer.fit(plan_steps(spec.train, 12, None), hooks(tmp_path, []), Progress())
    initial = tmp_path / "initial" if spec.train.variant == "pissa" else None
    outputs = Outputs(tmp_path / "out", known=False)
    folder = outputs.adapter(trainer.model, models.load_tokenizer(setting), None, spec, initial).parent
    _merge(spec, folder, {"method": setting.method, "evaluations": {"tuned": {}}}, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)
    with torch.no_grad():
        untuned = models.load_base(setting)(IDS).logits
        adapted = models.load_adapter(models.load_base(setting), folder / "adapter")(IDS).logits
        off = (merged(IDS).logits - adapted).abs().max()
    moved = (untuned - adapted).abs().max()
    assert off < 0.01 * moved  # what is written in bf16 is rounded
