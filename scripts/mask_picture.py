"""Draws ``docs/masked-sample.svg``: a row of the bundled instructions as ``ftlaunch check`` shows it, with its mask.

Usage: python -m scripts.mask_picture. The rendering is that of the training, by the demo's model's own chat template.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from launcher.cli.check import show_sample
from launcher.demo_model import DEMO_MODEL, made_apart

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "masked-sample.svg"


def main() -> None:
    """Check the example, and draw the first of the samples."""
    made_apart()
    rows, ftlaunch = ROOT / "examples" / "instructions", Path(sys.executable).with_name("ftlaunch")
    command: list[str | Path] = [ftlaunch, "check", rows, "--json", "--set", f"model.id={DEMO_MODEL}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    console = Console(record=True, width=84, file=io.StringIO())
    show_sample(console, json.loads(done.stdout)["samples"][0])
    PICTURE.write_text(console.export_svg(title="ftlaunch check"), encoding="utf-8")
    print(PICTURE)


if __name__ == "__main__":
    main()
