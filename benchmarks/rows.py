"""What the trainers are given: the bundled rows on a real model, or random rows on a model of random weights."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.trainers import Work
from launcher.cost.shapes import Shape
from training_image import model as models
from training_image.data import Example, Renderer, Sample
from training_image.data.build import Builder
from training_image.data.examples import IGNORED
from training_image.spec import Spec

HELD_OUT = 40
"""Rows, from the end of the file, whose loss is compared."""
COLUMNS = {"prompt": "instruction", "input": "input", "completion": "output"}
"""Alpaca's columns, which rows of instructions have."""
SHORT = (32, 160)
"""Tokens of short rows, drawn evenly."""


def bundled(model: str, rows: str, epochs: float, most: int | None, seed: int) -> Work:
    """Rows with the columns text and label, or instruction, input and output, rendered as a job does.

    ``most``: no more than so many are trained.
    """
    lines = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    labels = sorted({line["label"] for line in lines if "label" in line})
    task = {"type": "classification", "labels": labels} if labels else {"type": "instruction"}
    spec = _spec(model, task, {"epochs": epochs, "checkpointing": "off", "seed": seed})
    setting = models.choose(spec, Path())
    renderer, builder = Renderer(models.load_tokenizer(setting), spec, labels), Builder(spec, labels, False)
    built = [builder.build(line, place + 1, "train") for place, line in enumerate(lines)]
    samples = [renderer.sample(example) for example in built if isinstance(example, Example)]
    train, held = samples[:-HELD_OUT][:most], samples[-HELD_OUT:]
    return Work(spec, setting, train, held, setting.config.pad_token_id or 0)


def drawn(model: Path, length: int | None, checkpointing: Literal["on", "off"], step_tokens: int, steps: int) -> Work:
    """Random rows, the second half of each supervised. ``length`` None: short ones. ``step_tokens``: about so many a
    step."""
    mean = length or sum(SHORT) // 2
    batch = 2 ** int(math.log2(max(1, step_tokens // mean)))  # halves evenly where the whole step does not fit
    train = {"epochs": 1.0, "checkpointing": checkpointing, "batch_size": batch}
    spec = _spec(str(model), {"type": "instruction"}, train)
    setting = models.choose(spec, Path())
    draw = random.Random(0)
    samples = []
    for place in range(batch * steps + 4):
        size = length or draw.randint(*SHORT)
        ids = [draw.randrange(setting.config.vocab_size) for _ in range(size)]
        samples.append(Sample(str(place), ids, [IGNORED] * (size // 2) + ids[size // 2 :]))
    return Work(spec, setting, samples[:-4], samples[-4:], pad=0, warm_up=2)


def random_model(shape: Shape, folder: Path) -> Path:
    """A checkpoint of random bf16 weights in a published shape; no hub is needed. Made once."""
    if not (folder / "config.json").exists():
        config = config_of(shape, max_position_embeddings=4096)
        _tokenizer().save_pretrained(folder)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def config_of(shape: Shape, **more: Any) -> Any:
    """The config, as transformers has it, of a model of the shape."""
    return AutoConfig.for_model(
        shape.type,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        **more,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """One of a few words: no row is rendered by it, but trainers want to see one beside the weights."""
    special = {"unk": "<unk>", "pad": "<unk>", "bos": "<s>", "eos": "</s>"}
    words = WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token=special["unk"])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), **{f"{name}_token": word for name, word in special.items()}
    )


def small(shape: Shape) -> Shape:
    """A shape of the same kind that a CPU trains in seconds."""
    return replace(shape, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocabulary=512)


def _spec(model: str, task: dict[str, Any], train: dict[str, Any]) -> Spec:
    labelled = task["type"] == "classification"
    return Spec.model_validate(
        {
            "job": "benchmark-00000000",
            "model": {"id": model},
            "data": {"train": "train.jsonl", "columns": {} if labelled else COLUMNS},
            "task": task,
            # No warm-up: its first step is one of rate zero in transformers' schedules, and none of ours.
            "train": {"method": "qlora", "patience": 0, "warmup": 0.0, **train},
        }
    )
