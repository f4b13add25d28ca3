"""Writes the output tree: the same names on every service; the manifest last, so that its presence says "whole"."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform as python_platform
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_image.errors import InputError
from training_image.spec import Spec

if TYPE_CHECKING:
    from training_image.evaluate import Evaluation

SCHEMA = 1
_SPARE_BYTES = 128 << 20
"""Room for all that is not the adapter: predictions, tokenizer, curves."""
_PACKAGES = (
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate", "tokenizers", "safetensors"),
    *("scikit-learn", "scipy", "sacrebleu", "rouge-score", "datasketch", "pydantic", "numpy"),
)


class Outputs:
    """The output folder of one job, written by its main process."""

    def __init__(self, folder: Path, *, known: bool, main: bool = True) -> None:
        """``known``: an earlier start of this job may have written here. ``main``: whether this process is the one that
        writes; the others do not look, as they would see what it writes meanwhile.

        Raises InputError for a folder that cannot be written, is nearly full or holds anything that is not this job's.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not main:
                return
            (folder / ".probe").write_bytes(b"")
            (folder / ".probe").unlink()
            others = sorted(path.name for path in folder.iterdir() if path.name != "lost+found")
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}", "Give another --output folder.") from error
        if others and not known:
            raise InputError(
                f"the output folder {folder} is not empty: it holds {others[0]}", "Give an empty --output folder."
            )
        require_space({folder: 0})

    def metrics(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl anew: after a resume it holds each step once."""
        self._text("metrics.jsonl", "".join(map(_line, history)))

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(line))

    def predictions(self, evaluation: Evaluation) -> None:
        """Write ``predictions/NAME.jsonl``."""
        lines = [json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in evaluation.predictions]
        self._text(f"predictions/{evaluation.name}.jsonl", "".join(lines))

    def adapter(
        self,
        model: Any,
        tokenizer: Any,
        template: str | None,
        spec: Spec,
        initial: Path | None = None,
        *,
        revision: str | None = None,
    ) -> Path:
        """Save adapter and tokenizer; ``template``: the chat template of a tokenizer that has none of its own.

        ``initial``: the adapter before the training, where it began with a part of the base; what is saved stands on
        the untouched base then, at twice the rank. ``revision``: the hub's commit of the base, where it is known.
        """
        folder = self.folder / "adapter"
        new = self.folder / "adapter.new"
        shutil.rmtree(new, ignore_errors=True)
        before = None if initial is None else str(initial)
        model.save_pretrained(str(new), save_embedding_layers=False, path_initial_model_for_weight_conversion=before)
        (new / "README.md").unlink(missing_ok=True)  # peft's empty card; ours stands one folder up
        _normalise(new / "adapter_config.json", spec, revision)
        if template is not None:
            tokenizer.chat_template = template
        tokenizer.save_pretrained(str(new))
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
        return folder

    def finish(self, result: Mapping[str, Any], spec: Spec, environment: Mapping[str, Any]) -> None:
        """Write result.json and, where there is a verdict, the model card, then the manifest over everything."""
        from training_image.card import model_card  # the hub's library: outputs are tried before that is loaded

        self._text("result.json", json.dumps({"schema": SCHEMA, **result}, indent=1, allow_nan=False))
        if result["verdict"] is not None:
            self._text("README.md", model_card(result, spec, environment))
        files = {
            str(path.relative_to(self.folder)): {"sha256": _sha256(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        }
        manifest = {"schema": SCHEMA, "files": files, "environment": environment}
        self._text("manifest.json", json.dumps(manifest, indent=1))

    def copy_to(self, folder: Path) -> None:
        """Copy the tree as it is, the manifest last; for services that keep nothing of a failed job's output."""
        for path in sorted(self.folder.rglob("*"), key=lambda path: path.name == "manifest.json"):
            if path.is_file():
                target = folder / path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target.with_name(target.name + ".new"))
                target.with_name(target.name + ".new").replace(target)

    def _text(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)


def require_space(needed: Mapping[Path, int]) -> None:
    """Raise InputError where a folder's disk has less room than the bytes asked for, and some to spare."""
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needed.items():
        disk = folder.stat().st_dev
        disks[disk] = (folder, size + disks.get(disk, (folder, 0))[1])
    for folder, size in disks.values():
        free, wanted = shutil.disk_usage(folder).free, size + _SPARE_BYTES
        if free < wanted:
            raise InputError(
                f"the disk of {folder} has {free >> 20} MB left, the job needs {wanted >> 20} MB",
                "Free some space, take a lower train.rank, or give other --output and --checkpoints folders.",
            )


def _normalise(config: Path, spec: Spec, revision: str | None) -> None:
    """The base model by its published name and commit, not by a path of this machine; modules in a fixed order."""
    told = json.loads(config.read_text())
    told["base_model_name_or_path"] = spec.base_model
    told["revision"] = revision
    told["target_modules"] = sorted(told["target_modules"])
    config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def _line(values: Mapping[str, float]) -> str:
    """A line of JSON; null stands for what is not a number (a loss that diverged)."""
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps(finite) + "\n"


def environment(seed: int, data: Mapping[str, str]) -> dict[str, Any]:
    """Versions, device, seed, and the SHA-256 of each file of rows, for whoever wants to repeat the run."""
    import torch

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
        "data": dict(data),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
