"""Our trainer beside the stock one: tokens per second, peak memory and validation loss on the same rows.

    python -m benchmarks.training_speed --model FOLDER --rows examples/definitions/train.jsonl

The alternative is transformers' Trainer with peft and bitsandbytes at its best: length-grouped rows, dynamic padding,
the largest micro-batch (the whole step); same base in NF4, compute type, rank, rate and supervised tokens. ``--against
written-out`` gives it the base as ours takes it on a CPU: dequantised once, beforehand. Runs are interleaved, each in a
process of its own and with a seed of its own; the medians and the ratio are printed, and every run is kept as a line of
`benchmarks/results/training_speed.jsonl` with device, versions and date.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.kept import keep

RESULTS = Path(__file__).parent / "results" / "training_speed.jsonl"
RIVALS = ("stock", "written-out")
TRAINERS = ("ours", *RIVALS)
COMPARED = ("tokens_per_second", "supervised_tokens_per_second", "peak_memory_gib", "validation_loss")


def main() -> None:
    """Run both trainers in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--rows", required=True, help="jsonl with the columns text and label, or Alpaca's")
    parser.add_argument("--most", type=int, help="train no more than the first so many rows")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each next one has the next seed")
    parser.add_argument("--against", choices=RIVALS, default="stock")
    parser.add_argument("--one", choices=TRAINERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        from benchmarks.rows import bundled
        from benchmarks.trainers import run

        work = bundled(given.model, given.rows, given.epochs, given.most, given.seed)
        print(json.dumps({"rows": len(work.train), **run(given.one, work)}))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", given.against)}
    for seed in range(given.seed, given.seed + given.repeats):
        for name in found:
            line = _apart(name, given, seed)
            found[name].append(line)
            print(f"seed {seed}, {name}: {_told(line)}", flush=True)
            keep(RESULTS, {"trainer": name, "model": Path(given.model).name, "file": given.rows, "seed": seed} | line)
    _show(found, given.against)


def _apart(name: str, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run in a process of its own, so that its peak memory is its own."""
    options = ["--model", given.model, "--rows", given.rows, "--epochs", str(given.epochs), "--one", name]
    options += ["--seed", str(seed)]
    options += [] if given.most is None else ["--most", str(given.most)]
    command = [sys.executable, "-m", "benchmarks.training_speed", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def _told(line: dict[str, Any]) -> str:
    return (
        f"{line['tokens_per_second']:.0f} tokens/s ({line['supervised_tokens_per_second']:.0f} supervised), "
        f"{line['peak_memory_gib']:.2f} GiB, validation loss {line['validation_loss']:.4f}"
    )


def _show(found: dict[str, list[dict[str, Any]]], rival: str) -> None:
    medians = {
        name: {key: statistics.median(line[key] for line in lines) for key in COMPARED} for name, lines in found.items()
    }
    for name, line in medians.items():
        print(f"median of {name}: {_told(line)}")
    values = {name: [line["validation_loss"] for line in lines] for name, lines in found.items()}
    means = {name: statistics.fmean(some) for name, some in values.items()}
    off, noise = means["ours"] - means[rival], math.hypot(*(_error(some) for some in values.values()))
    print(f"mean validation loss: {off:+.4f} of the {rival} trainer's, standard error {noise:.4f}, by the seeds")
    pairs = [one - other for one, other in zip(values["ours"], values[rival], strict=True)]
    print(f"mean of the differences seed by seed: {statistics.fmean(pairs):+.4f}, standard error {_error(pairs):.4f}")
    ratio = medians["ours"]["tokens_per_second"] / medians[rival]["tokens_per_second"]
    print(f"ours is {ratio:.2f} times as fast as the {rival} trainer")


def _error(values: list[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


if __name__ == "__main__":
    main()
