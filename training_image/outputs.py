"""Writes the output tree: the same names on every service; the manifest last, so that its presence says "whole"."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform as python_platform
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from training_image.card import model_card
from training_image.errors import InputError
from training_image.evaluate import Evaluation
from training_image.spec import Spec

SCHEMA = 1
_NEEDED_BYTES = 256 << 20
"""Free space below which a job is refused at its start."""
_PACKAGES = (
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate", "tokenizers", "safetensors"),
    *("scikit-learn", "scipy", "sacrebleu", "rouge-score", "datasketch", "pydantic", "numpy"),
)


class Outputs:
    """The output folder of one job, written by its main process."""

    def __init__(self, folder: Path, job: str) -> None:
        """Raises InputError for a folder that cannot be written, is nearly full or holds another job's results."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".probe"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}", "Give another --output folder.") from error
        free = shutil.disk_usage(folder).free
        if free < _NEEDED_BYTES:
            hint = f"Free {_NEEDED_BYTES >> 20} MB or give another --output folder."
            raise InputError(f"the disk of {folder} is full: {free >> 20} MB left", hint)
        mark = folder / "result.json"
        if mark.exists() and json.loads(mark.read_text()).get("job") != job:
            raise InputError(f"{folder} holds the results of another job", "Give an empty --output folder.")

    def metrics(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl anew: after a resume it holds each step once."""
        self._text("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history))

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def predictions(self, evaluation: Evaluation) -> None:
        """Write ``predictions/NAME.jsonl``."""
        lines = [json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in evaluation.predictions]
        self._text(f"predictions/{evaluation.name}.jsonl", "".join(lines))

    def adapter(self, model: Any, tokenizer: Any, template: str | None) -> Path:
        """Save adapter and tokenizer; ``template``: the chat template of a tokenizer that has none of its own."""
        folder = self.folder / "adapter"
        new = self.folder / "adapter.new"
        shutil.rmtree(new, ignore_errors=True)
        model.save_pretrained(str(new), safe_serialization=True)
        (new / "README.md").unlink(missing_ok=True)  # peft's empty card; ours stands one folder up
        if template is not None:
            tokenizer.chat_template = template
        tokenizer.save_pretrained(str(new))
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
        return folder

    def finish(self, result: Mapping[str, Any], spec: Spec, environment: Mapping[str, Any]) -> None:
        """Write result.json and the model card, then the manifest over everything."""
        self._text("result.json", json.dumps({"schema": SCHEMA, **result}, indent=1, allow_nan=False))
        self._text("README.md", model_card(result, spec, environment))
        files = {
            str(path.relative_to(self.folder)): {"sha256": _sha256(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        }
        manifest = {"schema": SCHEMA, "files": files, "environment": environment}
        self._text("manifest.json", json.dumps(manifest, indent=1))

    def _text(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)


def environment(seed: int) -> dict[str, Any]:
    """Versions, device and seed, for whoever wants to repeat the run."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": python_platform.python_version(),
        "packages": packages,
        "gpu": gpu,
        "cuda": torch.version.cuda,
        "image_digest": os.environ.get("FTLAUNCH_IMAGE_DIGEST"),
        "seed": seed,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
