"""The memory model against published peaks of other stacks; prints the table of docs/cost.md.

Usage: python -m proof.memory_peaks. Each stack's habits are settings of `launcher.cost.memory.Setup`; rows whose habits
are not told (rules of thumb, unnamed models, several GPUs with offload) are left out with a reason.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.cost import memory, shapes

PUBLISHED = Path(__file__).parents[1] / "scripts" / "published" / "memory.csv"
Row = dict[str, str]

NAMES = {
    "gemma-2b": "google/gemma-2b",
    "gemma-7b": "google/gemma-7b",
    "gemma2-9b": "google/gemma-2-9b",
    "falcon-7b": "tiiuae/falcon-7b",
    "phi-1.5": "microsoft/phi-1_5",
    "phi-2": "microsoft/phi-2",
    "phi-3-mini": "microsoft/Phi-3-mini-4k",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
}


@dataclass(frozen=True)
class Point:
    """A published peak beside ours."""

    stack: str
    model: str
    told: str
    """Method, tokens, checkpointing."""
    measured: float
    """GiB."""
    estimated: float
    """GiB."""

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.estimated / self.measured


def points() -> Iterator[Point]:
    """All rows that can be compared."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            stack = stack_of(row)
            if stack is None:
                continue
            shape, setup = shapes.find(NAMES.get(row["model"], f"x/{row['model']}")), STACKS[stack](row)
            measured = float(row["peak_gb"]) * (1e9 / memory.GIB if "litgpt" in stack else 1.0)
            estimated = memory.peak(shape, setup).allocated / memory.GIB
            if "reserved" in row["kind"]:
                estimated *= memory.FRAGMENTS
            told = f"{row['method']}, {setup.tokens} tokens, checkpointing {'on' if setup.checkpointing else 'off'}"
            yield Point(stack, row["model"], told, measured, estimated)


def stack_of(row: Row) -> str | None:
    """The stack of a row that tells enough of itself."""
    if "can-i-finetune" in row["source"]:
        return "transformers and peft, stock"
    if "config_hub" in row["source"]:
        return "litgpt, A10G"
    if "resource-tables" in row["source"] and "StableLM" not in row["model"]:
        return "litgpt, A100"
    if "fsdp_qlora" in row["source"] and row["method"] == "QLoRA DDP":
        return "fsdp_qlora, one GPU's part"
    return None


def _stock(row: Row) -> memory.Setup:
    """Embeddings and head lifted to fp32, so that all logits stand there in fp32 five times (themselves, shifted, their
    softmax, two gradients); no mask."""
    tokens = int(row["seq_len"]) * int(row["micro_batch"])
    return memory.Setup(
        tokens=tokens,
        supervised=tokens,
        weight_bytes=2.0 if "bf16" in row["method"] else memory.NF4,
        embedding_bytes=4,
        logit_bytes=20,
        checkpointing=row["grad_ckpt"] == "on",
        shared=False,
        chunk=None,
    )


def _litgpt(row: Row) -> memory.Setup:
    """Everything in bf16, no checkpointing, dropout of 0.05, AdamW with moments in bf16."""
    rows = int(row["micro_batch"])
    tokens = rows * (512 if row["seq_len"] == "512" else 1304)
    single = "dq" not in row["method"]
    return memory.Setup(
        tokens=tokens,
        supervised=tokens,
        rank=int(row["lora_rank"]),
        weight_bytes=2.0 if "bf16" in row["method"] else memory.NF4_SINGLE if single else memory.NF4,
        adapter_bytes=2,
        optimizer_bytes=4,
        checkpointing=False,
        dropout=True,
        shared=False,
        chunk=None,
    )


def _fsdp(row: Row) -> memory.Setup:
    """Plain DDP of fsdp_qlora's own loop: checkpointing, AdamW, all logits."""
    tokens = int(row["seq_len"]) * int(row["micro_batch"])
    return memory.Setup(
        tokens=tokens,
        supervised=tokens,
        rank=int(row["lora_rank"]),
        adapter_bytes=2,
        optimizer_bytes=4,
        checkpointing=True,
        shared=False,
        chunk=None,
    )


STACKS: dict[str, Callable[[Row], memory.Setup]] = {
    "transformers and peft, stock": _stock,
    "litgpt, A10G": _litgpt,
    "litgpt, A100": _litgpt,
    "fsdp_qlora, one GPU's part": _fsdp,
}


def main() -> None:
    """Print the table."""
    print("| stack | model | run | published GiB | ours | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for each in points():
        numbers = f"{each.measured:.2f} | {each.estimated:.2f} | {each.ratio:.2f}"
        print(f"| {each.stack} | {each.model} | {each.told} | {numbers} |")


if __name__ == "__main__":
    main()
