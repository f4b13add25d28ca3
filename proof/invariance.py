"""The invariance classes with the real small model, in fp32: however a step is cut up, the same losses and norms.

Usage: python -m proof.invariance; exits with 1 where a class drifts; writes docs/proof/invariance.md.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from launcher.demo_model import DEMO_MODEL, made_apart
from tests.training.invariance import CLASSES, DRIFT, LARGEST, REFERENCE, Case, Trajectory, differences
from training_image import model as models
from training_image.data import Example, Renderer
from training_image.data.build import Builder
from training_image.processes import Processes
from training_image.spec import Spec

ROOT = Path(__file__).parents[1]
ROWS, STEPS, SIZE = ROOT / "examples" / "instructions" / "rows.jsonl", 3, 8
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "proof.invariance")


def main() -> int:
    """Walk through the classes; gives the exit code. Under torchrun: one process's part of the class of two."""
    case = real_case()
    with tempfile.TemporaryDirectory() as folder:
        if "RANK" in os.environ:
            return one_of_two(case, Path(sys.argv[1]))
        began = time.monotonic()
        reference = case.trajectory(Path(folder, "reference"), **REFERENCE)
        found = {}
        for name, options in CLASSES.items():
            found[name] = case.trajectory(Path(folder, name), **options)
            print(name, differences(found[name], reference), flush=True)
        told = Path(folder, "two.json")
        threads = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}
        subprocess.run([sys.executable, *TWO, told], env=threads, check=True)
        found["two processes (gloo)"] = [(loss, norm) for loss, norm in json.loads(told.read_text())]
    lines, broken = judge(reference, found, time.monotonic() - began)
    page = ROOT / "docs" / "proof" / "invariance.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(page.read_text(encoding="utf-8"))
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if broken else 0


def real_case() -> Case:
    """The demo's model in four bits written out, and the first rows of its example."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()][: STEPS * SIZE]
    spec = Spec.model_validate(
        {
            "job": "invariance-00000000",
            "model": {"id": str(made_apart()), "dtype": "fp32"},
            "data": {
                "train": "rows.jsonl",
                "columns": {"prompt": "instruction", "input": "input", "completion": "output"},
            },
            "task": {"type": "instruction"},
            "train": {"epochs": 1.0, "batch_size": SIZE, "method": "qlora"},
        }
    )
    models.quiet()
    setting = models.choose(spec, Path())
    base = models.load_base(setting)
    renderer, builder = Renderer(models.load_tokenizer(setting), spec), Builder(spec, [], False)
    examples = [builder.build(row, place + 1, "train") for place, row in enumerate(rows)]
    samples = [renderer.sample(example) for example in examples if isinstance(example, Example)]
    rate = models.learning_rate(spec, models.parameters(base))
    return Case(spec, setting, base, samples, pad=0, rate=rate, chunk=100)


def one_of_two(case: Case, told: Path) -> int:
    """Train as one of two processes; the first one writes the trajectory."""
    processes = Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    with tempfile.TemporaryDirectory() as folder:
        found = case.trajectory(Path(folder), **REFERENCE, processes=processes)
    if processes.first:
        told.write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
    return 0


def judge(reference: Trajectory, found: dict[str, Trajectory], seconds: float) -> tuple[list[str], list[str]]:
    """The page's lines, and what does not hold."""
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lengths = f"{STEPS} steps of {SIZE} rows of examples/instructions"
    lines = [
        "# However a step is cut up",
        "",
        f"{when}; {os.cpu_count()} cores ({platform.machine()}); torch {torch.__version__}; {DEMO_MODEL} in NF4, fp32; "
        f"{lengths}; {seconds:.0f} s; made by `make proof`.",
        "",
        "Each class is trained beside the reference, eight rows padded on the right in one forward pass. Shown are the",
        f"largest and the mean difference of losses and gradient norms; allowed are {LARGEST:g} and {DRIFT:g}. Losses",
        "are compared in nats a token, norms above 1 as a share of themselves, as fp32 rounds them.",
        "",
        f"Reference: losses {', '.join(f'{loss:.4f}' for loss, _ in reference)}; "
        f"norms {', '.join(f'{norm:.3f}' for _, norm in reference)}.",
        "",
        "| class | largest | mean |",
        "|---|---|---|",
    ]
    broken = []
    for name, trajectory in found.items():
        largest, mean = differences(trajectory, reference)
        lines.append(f"| {name} | {largest:.1e} | {mean:.1e} |")
        if largest > LARGEST or mean > DRIFT:
            broken.append(f"{name}: {largest:.1e} at most, {mean:.1e} in the mean")
    return lines, broken


if __name__ == "__main__":
    sys.exit(main())
