"""The memory model against what our own trainer allocates in one step; prints the table of docs/cost.md.

Usage: python -m proof.trainer_memory. Small models of random weights, on a GPU if there is one (torch's own peak), else
on the CPU (every allocation and release as torch's profiler saw it).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, Qwen2Config, Qwen3Config

from launcher.cost import memory, shapes
from training_image.batches import supervised_tokens
from training_image.data.examples import IGNORED, Sample
from training_image.model import Setting, add_adapter
from training_image.platform import StopSignal
from training_image.spec import Spec
from training_image.train import Trainer

ROWS, LENGTH, BEGINNING = 8, 64, 8
"""Rows of a step, tokens of a row, and of these what all rows begin with."""

LLAMA = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8}
WIDE = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
DEEP = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**LLAMA, num_key_value_heads=2, vocab_size=2048, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**WIDE, num_key_value_heads=2, vocab_size=32000, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**DEEP, num_key_value_heads=2, head_dim=64, vocab_size=1024, tie_word_embeddings=True),
    "phi3": Phi3Config(**DEEP, num_key_value_heads=4, vocab_size=1024, pad_token_id=0, eos_token_id=1, bos_token_id=1),
}
CASES = [
    ("llama", torch.float32, "off"),
    ("llama", torch.bfloat16, "on"),
    ("qwen2", torch.float32, "on"),
    ("qwen3", torch.bfloat16, "off"),
    ("phi3", torch.float32, "on"),
    ("phi3", torch.bfloat16, "off"),
]
"""Architecture, compute type, gradient checkpointing."""


@dataclass(frozen=True)
class Measured:
    """A step of the trainer beside the estimate."""

    case: str
    measured: float
    """Bytes allocated at the worst moment."""
    estimated: float

    @property
    def ratio(self) -> float:
        """Estimate over measurement."""
        return self.estimated / self.measured


def compare(name: str, dtype: torch.dtype, checkpointing: str) -> Measured:
    """Measure one case and estimate it from its config."""
    config = CONFIGS[name]
    made = _trainer(config, dtype, checkpointing)
    size = torch.finfo(dtype).bits // 8
    shape = shapes.from_config(config.to_dict(), name)
    assert shape.adapter(16) == sum(weight.numel() for weight in made.parameters)
    assert made.layout == "shared"
    setup = memory.Setup(
        tokens=ROWS * LENGTH - BEGINNING * (ROWS - 1),
        supervised=supervised_tokens(made.samples),
        weight_bytes=size,
        compute_bytes=size,
        embedding_bytes=size,
        optimizer_bytes=memory.OPTIMIZER["adamw"],
        checkpointing=checkpointing == "on",
    )
    told = f"{name}, {str(dtype).removeprefix('torch.')}, checkpointing {checkpointing}"
    return Measured(told, _allocated(made), memory.peak(shape, setup).allocated)


def _trainer(config: Any, dtype: torch.dtype, checkpointing: str) -> Trainer:
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").to(device)
    train = {"method": "lora", "checkpointing": checkpointing, "optimizer": "adamw", "batch_size": ROWS}
    text = {"schema": 1, "job": "a", "model": {"id": "a"}, "data": {"train": "a.jsonl"}, "train": train}
    spec = Spec.model_validate(text | {"task": {"type": "instruction"}})
    draw = random.Random(0)
    head = [draw.randrange(config.vocab_size) for _ in range(BEGINNING)]
    samples = []
    for row in range(ROWS):
        ids = head + [draw.randrange(config.vocab_size) for _ in range(LENGTH - BEGINNING)]
        samples.append(Sample(str(row), ids, [IGNORED] * (LENGTH // 2) + ids[LENGTH // 2 :]))
    setting = Setting(device, dtype, "lora", "sdpa", "random", None, config)
    return Trainer(add_adapter(model.requires_grad_(False), spec), samples, setting, spec.train, 1e-3, 0)


def _allocated(made: Trainer) -> float:
    """Bytes at the worst moment of a step."""

    def step() -> None:
        made._gradients(made.samples, supervised_tokens(made.samples), StopSignal())
        made.optimizer.step()

    step()  # the moments are made in the first one
    made.optimizer.zero_grad(set_to_none=True)
    if made.setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return float(torch.cuda.max_memory_allocated())
    weights = sum(weight.numel() * weight.element_size() for weight in made.model.parameters())
    moments = sum(8 * weight.numel() for weight in made.parameters)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step()
    found = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(found, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return float(weights + moments + most)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| step of our trainer | allocated MiB | estimated | ratio |\n| --- | --- | --- | --- |")
    for case in CASES:
        found = compare(*case)
        numbers = f"{found.measured / 2**20:.1f} | {found.estimated / 2**20:.1f} | {found.ratio:.2f}"
        print(f"| {found.case} | {numbers} |")


if __name__ == "__main__":
    main()
