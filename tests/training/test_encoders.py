"""Families of encoders with weights by chance: each is recognised, trained and asked, in fp32 and in 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
)

from training_image import model as models
from training_image.checkpoints import Progress
from training_image.data.examples import IGNORED, Sample
from training_image.encoder import label_scores
from training_image.train import Trainer, plan_steps

from .loop import hooks
from .test_model import make_spec, trained_bytes

SHAPE: dict[str, Any] = {
    **{"vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0},
}
FAMILIES = {
    "bert": BertConfig(**SHAPE),
    "albert": AlbertConfig(**SHAPE, embedding_size=16),
    "deberta": DebertaV2Config(**SHAPE),
    "distilbert": DistilBertConfig(vocab_size=600, dim=32, hidden_dim=64, n_layers=2, n_heads=2, pad_token_id=0),
    "modernbert": ModernBertConfig(**SHAPE, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3),
    "mpnet": MPNetConfig(**SHAPE),
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_encoders_is_trained_and_asked(tmp_path: Path, family: str, dtype: str) -> None:
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(FAMILIES[family]).save_pretrained(tmp_path / "base")
    spec = make_spec(method="lora", max_steps=2)
    own = spec.model.model_copy(update={"id": str(tmp_path / "base"), "dtype": dtype})
    spec = spec.model_copy(update={"model": own})
    setting = models.choose(spec, tmp_path, labels=("animal", "food"))
    assert setting.encoder
    base = models.load_base(setting)
    told = models.adapter_bytes(base, spec.train.rank, encoder=True)
    model = models.add_adapter(base, spec, encoder=True)
    assert told == trained_bytes(model)
    rows = [Sample(str(i), [2, 50 + i, 60 + i, 3], [IGNORED] * 3 + [i % 2]) for i in range(8)]
    lines: list[dict[str, float]] = []
    trainer = Trainer(model, rows, setting, spec.train, 1e-3, pad=0)
    trainer.fit(plan_steps(spec.train, len(rows), None), hooks(tmp_path, lines), Progress())
    assert lines[0]["train/loss"] == pytest.approx(0.69, abs=0.3)  # of two labels, by chance
    scores = label_scores(trainer.model, [row.input_ids for row in rows], pad=0)
    assert [len(row) for row in scores] == [2] * 8
