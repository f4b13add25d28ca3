"""Makes ``launcher/cost/throughput.csv`` of published training speeds: those with tokens a second that can be right.

Usage: python -m scripts.throughput_table. What is left out is printed with its reason.
"""

from __future__ import annotations

import csv
from pathlib import Path

from launcher.cost import shapes

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "scripts" / "published" / "throughput.csv"
TABLE = ROOT / "launcher" / "cost" / "throughput.csv"
GPUS = {"A100": "A100-80GB"}

Row = dict[str, str]


def main() -> None:
    """Write the table."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    made = [entry(row) for row in rows if not left_out(row)]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    print(f"{len(made)} of {len(rows)} points")
    for row in rows:
        if reason := left_out(row):
            print(f"left out: {row['gpu']} {row['model']} {row['method']}: {reason}")


def left_out(row: Row) -> str:
    """Why a point is not used; empty if it is."""
    if not row["tokens_per_s_per_gpu"]:
        return "tokens a second are not told"
    if row["gpu"] == "A6000":
        return "146 % of the GPU's peak"
    if row["gpu"] == "RTX4090" and row["method"] == "LoRA":
        return "90 % of the GPU's peak by a convention that counts recomputing: it recomputes little or nothing"
    if row["gpu"] == "A10G":
        return "kept apart: this very run is what the estimate is tested on"
    return ""


def entry(row: Row) -> Row:
    """A point as the speed model takes it; weights: those that a token is multiplied with."""
    shape = shapes.find(row["model"])
    return {
        "gpu": GPUS.get(row["gpu"], row["gpu"]),
        "gpus": row["n_gpus"],
        "model": row["model"],
        "weights": str(shape.linear + shape.head),
        "tokens": str(int(row["seq_len"]) * int(row["micro_batch"])),
        "checkpointing": "no" if row["grad_ckpt"] == "off" else "yes",
        "tokens_per_second": row["tokens_per_s_per_gpu"],
        "source": row["source"],
    }


if __name__ == "__main__":
    main()
