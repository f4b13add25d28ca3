"""One of two processes, whose bases are in parts or whole in each: what it finds, as JSON into the folder given.

By ``torchrun --nproc-per-node 2 -m tests.training.two_processes FOLDER``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM

from tests.tiny_model import MODEL
from tests.training.invariance import CLASSES, REFERENCE, Case
from tests.training.loop import hooks
from tests.training.test_model import make_samples, make_spec
from training_image import model as models
from training_image import sharding
from training_image.batches import micro_batches
from training_image.checkpoints import Progress
from training_image.errors import InputError
from training_image.evaluate.generate import generate
from training_image.processes import Processes
from training_image.train import Trainer, plan_steps

MORE: dict[str, dict[str, Any]] = {
    "all rows at once": REFERENCE,
    "five rows a step": {"layout": "packed", "rows": 1, "batch_size": 5},
    "one row a step": {"layout": "padded", "rows": 1, "batch_size": 1, "max_steps": 4},
}
CASES = MORE | {name: CLASSES[name] for name in ("packed", "behind a shared beginning", "logits in chunks")}
CASES |= {name: CLASSES[name] for name in ("packed with checkpointing", "four rows at a time", "stopped and resumed")}
WHOLE = ("all rows at once", "packed", "five rows a step", "one row a step", "stopped and resumed")
"""Of them, those that are run with the whole base in each process, too."""


def untied(folder: Path) -> Path:
    """The tiny model, its head a copy of its embeddings."""
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(folder / "untied")
    return folder / "untied"


def make_case(
    source: Path, processes: Processes, method: str = "qlora", *, sharded: bool = True
) -> tuple[Case, int, list[int]]:
    """With the bytes of the base, and those of this process's part of it."""
    spec = make_spec(batch_size=8, epochs=4.0, method=method)
    setting = replace(models.choose(spec, Path()), sharded=sharded, source=str(source))
    base = models.load_base(setting)
    whole = sharding.own_bytes(base)
    if sharded:
        sharding.shard(base, processes)
    case = Case(spec, setting, base, make_samples(16), pad=2, rate=3e-3, chunk=10)
    return case, whole, [sharding.own_bytes(layer) for layer in (base, base.get_decoder().layers)]


def choices(processes: Processes) -> dict[str, list[Any]]:
    """Whether the base is sharded, or the error, by what is asked and how many bytes are free."""

    def choose(free: float, encoder: bool = False, alone: bool = False, **train: Any) -> list[Any]:
        spec = make_spec(**train)
        setting = replace(models.choose(spec, Path()), labels=("yes", "no") if encoder else ())
        with patch("training_image.sharding.free_bytes", return_value=free):
            try:
                who = Processes() if alone else processes
                return [sharding.choose(setting, who, spec.train, make_samples(4))[0].sharded]
            except InputError as error:
                return [error.message.partition(": base")[0]]

    return {
        "room": choose(1e12),
        "one process has no room": choose(1e12 if processes.first else 1e3),
        "one process, no room": choose(1e3, alone=True),
        "encoder": choose(1e3, encoder=True),
        "dora": choose(1e3, variant="dora"),
        "modules_to_save": choose(1e3, modules_to_save=["embed_tokens"]),
    }


def overflow(folder: Path, processes: Processes) -> list[float]:
    """The adapter's weights after three steps in fp16, in the second of which one process's gradient overflows."""
    spec = make_spec(batch_size=8, max_steps=3, method="lora")
    setting = replace(models.choose(spec, Path()), dtype=torch.float16)
    model = models.add_adapter(models.load_base(setting), spec)
    trainer = Trainer(model, make_samples(16), setting, spec.train, 3e-3, 2, processes)
    lines: list[dict[str, float]] = []
    if processes.first:
        trainer.parameters[0].register_hook(lambda grad: grad * float("inf") if len(lines) == 1 else grad)
    trainer.fit(plan_steps(spec.train, 16, None), hooks(folder, lines), Progress())
    return torch.cat([weight.detach().flatten() for weight in trainer.parameters]).tolist()


def main(folder: Path) -> None:
    """All that the tests ask for, in one start."""
    processes = Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    tied, whole, own = make_case(MODEL, processes)
    told: dict[str, Any] = {"whole": whole, "own": own, "trajectories": {}}
    for place, (name, arguments) in enumerate(CASES.items()):
        told["trajectories"][name] = tied.trajectory(folder / str(place), processes=processes, **arguments)
    whole_base, _, _ = make_case(MODEL, processes, sharded=False)
    for name in WHOLE:
        found = whole_base.trajectory(folder / f"whole, {name}", processes=processes, **CASES[name])
        told["trajectories"][f"whole, {name}"] = found
    for name, method in (("untied", "qlora"), ("untied, not quantised", "lora")):
        made, told["whole untied"], told["own untied"] = make_case(folder / "untied", processes, method)
        told["trajectories"][name] = made.trajectory(folder / name, processes=processes, **CLASSES["logits in chunks"])
    # One process has its answers after a token, the other goes on, and waits for nobody.
    prompts = [sample.input_ids[:9] for sample in make_samples(3)]
    stops = {2} if processes.first else set(range(tied.base.config.vocab_size))
    told["answers"] = generate(tied.base, prompts, stops, 8)
    batches = micro_batches(tied.samples[: processes.rank], 30, "padded", 0)
    told["overflow"] = overflow(folder / "overflow", processes)
    told["choices"] = choices(processes)
    told["micro-batches"] = len(sharding.as_many(batches, tied.samples, 0, processes))
    (folder / f"{processes.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
