"""Our trainer beside others on an NVIDIA card: ``python -m benchmarks.gpu``. No hub and no data are needed.

Models of random weights in the shapes of Qwen2.5-0.5B and 1.5B, Llama-3.2-3B and Llama-3.1-8B; rows of 512 and of
2,048 tokens and short ones (32 to 160); gradient checkpointing on and off; QLoRA, rank 16; 16,384 tokens a step. Each
run is a process of its own that may take 16 GiB of the card, as if it were a small one (``--gib``). Beside ours:
transformers' Trainer with peft and bitsandbytes at its best, and Unsloth's, where it is installed. Every run is kept as
a line of `benchmarks/results/gpu.jsonl` with device, versions and date; one that does not fit, or fails, is kept as
such. At the end stand the medians of each case, beside what we aim at.

MFU: 4 N operations a token (forward 2 N, gradient of the activations 2 N; frozen weights need none of their own), N
all weights, and 6 x layers x width of all heads x tokens of a row for causal attention; what checkpointing computes
again is not counted; over the card's dense bf16 peak by its data sheet.

``--tiny`` does the same with models of a few thousand weights, on a CPU too: it tries this program, not the card.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.kept import keep
from launcher.cost.shapes import Shape, find

RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"
MODELS = ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B", "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.1-8B")
LENGTHS = ("512", "2048", "short")
STEP_TOKENS, STEPS = 16384, 10
TINY_TOKENS, TINY_STEPS = 512, 2
LARGE = 7e9
"""Weights of a model to which the aims in tokens a second and GiB apply."""
AIMED_SPEED = {"on": 8_000, "off": 11_000}
"""Tokens a second of a large model's QLoRA, by checkpointing."""
AIMED_GIB = 8
"""Below this a large model trains rows of 2,048 tokens."""
AIMED_RATIOS = {"stock": {"short": 2.0, "512": 1.5, "2048": 1.5}, "unsloth": dict.fromkeys(LENGTHS, 1.0)}
"""Times as fast as the others, by the rows' length."""
COMPARED = ("tokens_per_second", "peak_memory_gib", "validation_loss")


def main(arguments: list[str] | None = None) -> None:
    """Run every shape, length and trainer in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=LENGTHS)
    parser.add_argument("--checkpointing", nargs="+", choices=("on", "off"), default=("on", "off"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gib", type=float, default=16.0, help="memory that a run may take; 0: all")
    parser.add_argument("--folder", type=Path, help="where the random models are kept (8B: 16 GB)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="try this program with models of a few thousand weights")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        print(json.dumps(one(json.loads(given.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        every(given, given.folder or Path(folder))


def trainers() -> list[str]:
    """Those that can run here."""
    found = importlib.util.find_spec("unsloth") is not None
    return ["ours", "stock", *(["unsloth"] if found else [])]


def every(given: argparse.Namespace, folder: Path) -> None:
    """All runs; the trainers take turns, so that a card that grows hot or busy meets all of them."""
    if not given.tiny:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("no NVIDIA card is here; --tiny tries this program on a CPU")
    lines = []
    for name in given.models:
        for length in given.lengths:
            for checkpointing in given.checkpointing:
                case = {"model": name, "length": length, "checkpointing": checkpointing, "tiny": given.tiny}
                for _ in range(given.repeats):
                    for trainer in trainers():
                        line = apart(case | {"trainer": trainer, "gib": given.gib, "folder": str(folder)})
                        lines.append(case | {"trainer": trainer, "gib": given.gib} | line)
                        keep(given.results, lines[-1])
                        print(f"{name}, {length}, checkpointing {checkpointing}, {trainer}: {told(line)}", flush=True)
    print("\n".join(summary(lines)))


def apart(case: dict[str, Any]) -> dict[str, Any]:
    """One run in a process of its own; what ends it early is in its line, and the other runs go on."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "out of memory" in done.stderr or "does not fit" in done.stderr:
            return {"error": "out of memory"}
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"error": last[0][:300], "stderr": done.stderr[-3000:]}
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def one(case: dict[str, Any]) -> dict[str, Any]:
    """A run's line."""
    if case["trainer"] == "unsloth":
        import unsloth  # noqa: F401  # it wants to be there before transformers
    import torch

    from benchmarks import rows
    from benchmarks.trainers import run

    shape = rows.small(find(case["model"])) if case["tiny"] else find(case["model"])
    folder = Path(case["folder"], case["model"].replace("/", "--") + ("-tiny" if case["tiny"] else ""))
    model = rows.random_model(shape, folder)
    if torch.cuda.is_available() and case["gib"]:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, case["gib"] * 2**30 / whole))
    length = None if case["length"] == "short" else int(case["length"]) // (8 if case["tiny"] else 1)
    tokens, steps = (TINY_TOKENS, TINY_STEPS) if case["tiny"] else (STEP_TOKENS, STEPS)
    work = rows.drawn(model, length, case["checkpointing"], tokens, steps)
    line = run(case["trainer"], work)
    mean = sum(len(row.input_ids) for row in work.train) / len(work.train)
    return line | {"mfu": mfu(shape, mean, line["tokens_per_second"])}


def mfu(shape: Shape, length: float, tokens_per_second: float) -> float | None:
    """Share of the card's peak, by the convention above; None for a device whose peak is not in our table."""
    import torch

    from backends import hardware

    if not torch.cuda.is_available() or (card := hardware.gpu(torch.cuda.get_device_name())) is None:
        return None
    return operations(shape, length) * tokens_per_second / (card.tflops * 1e12)


def operations(shape: Shape, length: float) -> float:
    """Floating-point operations that a token of a row of this length costs."""
    return 4.0 * shape.parameters + 6.0 * shape.layers * shape.queries * length


def told(line: dict[str, Any]) -> str:
    """A line in words."""
    if "error" in line:
        return str(line["error"])
    share = "" if line["mfu"] is None else f", MFU {100 * line['mfu']:.1f} %"
    return (
        f"{line['tokens_per_second']:.0f} tokens/s ({line['supervised_tokens_per_second']:.0f} supervised), "
        f"{line['peak_memory_gib']:.2f} GiB{share}, validation loss {line['validation_loss']:.4f}"
    )


def summary(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Medians of each case's trainers, and ours beside the others and what we aim at."""
    said = []
    for case in dict.fromkeys((line["model"], line["length"], line["checkpointing"]) for line in lines):
        said.append("{}, {}, checkpointing {}, medians:".format(*case))
        medians: dict[str, dict[str, float]] = {}
        runs = [line for line in lines if (line["model"], line["length"], line["checkpointing"]) == case]
        for trainer in dict.fromkeys(line["trainer"] for line in runs):
            own = [line for line in runs if line["trainer"] == trainer]
            done = [line for line in own if "error" not in line]
            if not done:
                said.append(f"  {trainer}: {own[0]['error']}")
                continue
            found = medians[trainer] = {key: statistics.median(line[key] for line in done) for key in COMPARED}
            speed, peak, loss = (found[key] for key in COMPARED)
            of = f"{len(done)} of {len(own)} runs"
            said.append(f"  {trainer}: {speed:.0f} tokens/s, {peak:.2f} GiB, validation loss {loss:.4f}, {of}")
        said += [f"  {text}: {'reached' if reached else 'missed'}" for text, reached in aims(*case, medians)]
    return said


def aims(
    model: str, length: str, checkpointing: str, medians: dict[str, dict[str, float]]
) -> Iterator[tuple[str, bool]]:
    """What we aim at in a case, and whether ours reaches it; nothing where ours has no median."""
    if "ours" not in medians:
        return
    speed, peak = medians["ours"]["tokens_per_second"], medians["ours"]["peak_memory_gib"]
    if find(model).parameters > LARGE:
        least = AIMED_SPEED[checkpointing]
        yield f"{speed:.0f} of {least} tokens/s", speed >= least
        if length == "2048":
            yield f"{peak:.2f} GiB, below {AIMED_GIB}", peak < AIMED_GIB
    for rival, ratios in AIMED_RATIOS.items():
        if rival in medians:
            ratio, wanted = speed / medians[rival]["tokens_per_second"], ratios[length]
            yield f"{ratio:.2f} times as fast as {rival}, at least {wanted:g}", ratio >= wanted


if __name__ == "__main__":
    main()
