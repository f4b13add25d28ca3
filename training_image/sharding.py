"""The base in parts, where one card cannot hold it (FSDP-QLoRA): each process keeps a part of every layer.

A layer's weights are gathered when the layer runs, forward and backward, and given back after it, by torch's
`fully_shard`. Four-bit weights travel as the bytes that they are: stored in bf16, as FSDP once asked for, some of them
look like numbers that are none, and kernels may write those anew. What is small stays whole in every process: the
constants of the four bits, tied embeddings, and the adapter, so that its gradients are summed and clipped, and it is
stepped and saved, as where every process holds the whole base (`training_image.processes`).

All processes have to run the layers as often as each other. So all evaluate, and in a step one that has fewer
micro-batches than the others runs some more that supervise nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from training_image import model as models
from training_image.batches import MicroBatch, micro_batches
from training_image.data.examples import Sample
from training_image.errors import InputError
from training_image.memory import free_bytes, moments_bytes
from training_image.model import Setting
from training_image.processes import Processes
from training_image.progress import say
from training_image.spec import Train

_NF4 = 0.5 + 0.127 / 8
"""Bytes of a weight in four bits, its constants with it (QLoRA, Dettmers 2023)."""
_LOGIT_BYTES = 12 * 2**26
"""The logits that the loss has at a time, in all their forms."""
_USED = 0.9
"""Share of a card's free memory that may be counted on."""


def choose(setting: Setting, processes: Processes, train: Train, samples: Sequence[Sample]) -> tuple[Setting, str]:
    """Whether the base is sharded, and why: only where there are several processes and one of them has no room for the
    whole. All take the first one's method.

    Raises InputError where the base has to be sharded and the adapter is of a kind that wants it whole.
    """
    if processes.alone:
        return setting, ""
    setting = replace(setting, method=processes.from_first(lambda: setting.method))
    if setting.encoder:
        return setting, "an encoder is small"
    need = needed_bytes(setting, train, max(len(sample.input_ids) for sample in samples))
    free = free_bytes(setting.device) * _USED
    if setting.device.type == "cpu":  # which has one memory for all processes of a machine
        free /= int(os.environ.get("LOCAL_WORLD_SIZE", processes.size))
    sharded = processes.any(need > free)
    least = -processes.most(-int(free))
    why = (
        f"base, adapter and a pass of the longest row take {need / 2**30:.2f} GiB, one process has {least / 2**30:.2f}"
    )
    say(f"{why}: " + ("each keeps a part of the base" if sharded else "each holds the whole base"))
    if sharded and (train.variant in ("dora", "pissa") or train.modules_to_save):
        asked = f"train.variant: {train.variant}" if train.variant in ("dora", "pissa") else "train.modules_to_save"
        raise InputError(
            f"{asked} needs the whole base on one card: {why}",
            "Take GPUs with more memory, a smaller model, or train.variant: lora without modules_to_save.",
        )
    return replace(setting, sharded=sharded), why


def needed_bytes(setting: Setting, train: Train, longest: int) -> float:
    """What one card would need at least for the whole base: its weights, the adapter with gradients and moments, and a
    pass of the longest row (tokens) with gradient checkpointing."""
    model = models.without_weights(setting.config)
    head, size = model.get_output_embeddings(), setting.dtype.itemsize
    linear = [m.weight for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head]
    quantised = sum(weight.numel() for weight in linear) if setting.method == "qlora" else 0
    base = quantised * _NF4 + (models.parameters(model) - quantised) * size
    trained = models.adapter_bytes(model, train.rank) // 4
    moments = moments_bytes("adamw_8bit" if setting.device.type == "cuda" else "adamw", trained)
    adapter = trained * (4 + 4 + size) + moments
    hidden, layers = model.get_input_embeddings().embedding_dim, len(_layers(model))
    widest = max((max(weight.shape) for weight in linear), default=0)
    largest = max((weight.numel() for weight in linear), default=0)
    kept = size * longest * (hidden * (layers + 12) + 6 * widest)
    return float(base + adapter + kept + 2 * size * largest * bool(quantised) + _LOGIT_BYTES)


def shard(base: Any, processes: Processes) -> None:
    """Leave this process its part of a base that is on the CPU, in place; the parts go to the device.

    Raises InputError for a model whose layers transformers does not name.
    """
    layers, device = _layers(base), processes.device
    if not layers:
        raise InputError(
            f"{type(base).__name__} is too large for one card, and transformers does not say where it may be cut",
            "Take a GPU with more memory, or a smaller model.",
        )
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    tied = embeddings.weight is head.weight
    options: dict[str, Any] = {"mesh": init_device_mesh(device.type, (processes.size,)), "reshard_after_forward": True}
    for part in (*layers, *(() if tied else (embeddings, head))):
        four_bits = [module for module in part.modules() if isinstance(module, Linear4bit)]
        kinds = [(weight.compress_statistics, weight.quant_type) for weight in map(_weight, four_bits)]
        fully_shard(part.to(device), **options)
        for module, kind in zip(four_bits, kinds, strict=True):
            _weight(module).compress_statistics, _weight(module).quant_type = kind  # peft asks the weight
    for rest in (*base.parameters(), *base.buffers()):
        if not isinstance(rest, DTensor):
            rest.data = rest.data.to(device)
    fully_shard(base.get_decoder(), ignored_params={embeddings.weight} if tied else set(), **options)
    all_bytes = sum(weight.nbytes for weight in base.parameters())
    say(f"this process keeps {own_bytes(base) / 2**20:.1f} of {all_bytes / 2**20:.1f} MiB of the base")


def own_bytes(model: Any) -> int:
    """Bytes of the weights that this process keeps."""
    return sum((w.to_local() if isinstance(w, DTensor) else w).nbytes for w in model.parameters())


def is_sharded(model: Any) -> bool:
    """Whether the layers of a model have to be run by all processes together."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def as_many(batches: list[MicroBatch], rows: Sequence[Sample], pad: int, processes: Processes) -> list[MicroBatch]:
    """A process's micro-batches of a step, and so many that supervise nothing that all processes have as many.

    ``rows``: all of the step.
    """
    missing = processes.most(len(batches)) - len(batches)
    shortest = min(rows, key=lambda row: len(row.input_ids))
    nothing = torch.empty(0, dtype=torch.long)
    idle = replace(micro_batches([shortest], 1, "padded", pad)[0], sources=nothing, targets=nothing)
    return batches + [idle] * missing


def load_adapter(base: Any, folder: Path | None, processes: Processes) -> Any:
    """As `training_image.model.load_adapter`, in every process, from the folder that the first one has written."""

    def files() -> dict[str, bytes]:
        assert folder is not None  # the first process's own
        return {path.name: path.read_bytes() for path in folder.glob("adapter_*")}

    with tempfile.TemporaryDirectory() as place:
        for name, content in processes.from_first(files).items():
            (Path(place) / name).write_bytes(content)
        return models.load_adapter(base, Path(place))


def _weight(layer: Linear4bit) -> Any:
    """As a torch tensor it has no attributes of bitsandbytes'."""
    return layer.weight


def _layers(model: Any) -> list[Any]:
    """What transformers says must stay in one piece: the layers."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]
