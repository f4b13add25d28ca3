"""The speed model out of sample: each published run foretold by all others; prints the table of docs/cost.md.

Usage: python -m proof.training_speed.
"""

from __future__ import annotations

import math

from launcher.cost import speed


def main() -> None:
    """Print the table."""
    runs = speed.published()
    print("| GPU | weights | tokens a pass | published tokens/s | foretold | inside its range |")
    print("| --- | --- | --- | --- | --- | --- |")
    hits = 0
    for number, run in enumerate(runs):
        model = speed.fit([*runs[:number], *runs[number + 1 :]])
        told = speed.predict(run.gpu, run.weights * run.tokens, model=model)
        inside = abs(math.log(run.flops / told.flops)) <= speed.Z * told.spread
        hits += inside
        each = told.flops / speed.per_token(run.weights, run.checkpointing)
        factor = math.exp(speed.Z * told.spread)
        span = f"{each:.0f} ({each / factor:.0f}-{each * factor:.0f})"
        about = f"| {run.gpu} | {run.weights / 1e9:.2f}B | {run.tokens:.0f} | {run.tokens_per_second:.0f}"
        print(f"{about} | {span} | {'yes' if inside else 'no'} |")
    print(f"\n{hits} of {len(runs)} lie inside a range that claims nine of ten.")


if __name__ == "__main__":
    main()
