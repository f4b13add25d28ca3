"""A tuned model to take away: the adapter, the weights merged with it, or a GGUF file. Needs the extra ``local``.

An adapter trained on four-bit weights is merged into the weights that those stand for, not into the original ones: that
is exact but for rounding, where the original base would move the logits (peft#2321). What was merged is stored in bf16,
loaded afresh and evaluated on the job's test rows; it is kept only where it is as good as the adapter was.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher import job, submission
from launcher.store import Record
from training_image.errors import InputError
from training_image.spec import Spec

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluated:
    """How a merged model did on the job's test rows, beside the adapter that it was made of."""

    metric: str
    adapter: float
    ci95: tuple[float, float]
    """Of the adapter; a merged model below it is not kept."""
    merged: float
    same_answers: int
    n: int

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


class NotAsGood(Exception):
    """The merged model is worse than the adapter."""


def results_folder(record: Record) -> Path:
    """The fetched results that hold an adapter. Raises InputError where there are none."""
    folder = Path(record.output) if record.output else None
    if folder is None or not folder.is_dir():
        raise InputError(f"the results of {record.job} are not here", hint=f"ftlaunch fetch {record.job}")
    if not (folder / "adapter" / "adapter_config.json").is_file():
        raise InputError(f"{record.job} has no adapter: nothing was tuned", hint=f"see {folder / 'README.md'}")
    return folder


def copy_adapter(folder: Path, output: Path) -> list[str]:
    """Copy the adapter as peft and vLLM read it; gives what vLLM's LoRA does not take of it, if anything."""
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    with _made(output) as new:
        shutil.copytree(folder / "adapter", new, dirs_exist_ok=True)
    notes = []
    if config.get("use_dora"):
        notes.append("vLLM does not take DoRA adapters; export --merged makes weights that it takes")
    if config.get("modules_to_save"):
        notes.append("vLLM takes no adapter with whole modules; export --merged makes weights that it takes")
    if config["r"] > 16:
        notes.append(f"vLLM takes ranks above 16 with --max-lora-rank {config['r']} or more")
    return notes


def merge(record: Record, folder: Path, output: Path, say: Say) -> Evaluated:
    """Write base and adapter as one checkpoint in bf16, evaluated before it is called good.

    Raises NotAsGood where the metric falls out of the adapter's interval on the wrong side; nothing is left then.
    """
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    spec = of_commit(own_spec(folder), result)
    with _made(output) as new:
        say("merging")
        _merge(spec, folder, result, new)
        say("evaluating what was merged")
        found = _evaluate(spec, folder, result, new)
    say(f"{found.metric} of the adapter {found.adapter:.4f}, of what was merged {found.merged:.4f}")
    return found


def own_spec(folder: Path) -> Spec:
    """The spec of a job with the user's own paths, from the job file beside its results."""
    return submission.with_own_paths(job.load(str(folder / "job.yaml")))


def of_commit(spec: Spec, result: Mapping[str, Any]) -> Spec:
    """The spec with the commit of the hub that the job's base was loaded from: a branch may have moved on since."""
    return spec.model_copy(update={"model": spec.model.model_copy(update={"revision": result["model"]["revision"]})})


class _made:
    """A folder that appears under its name when all went well, and not at all else."""

    def __init__(self, output: Path) -> None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"the output folder {output} exists already", hint="name another with --output")
        self.output = output

    def __enter__(self) -> Path:
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.new = Path(tempfile.mkdtemp(prefix=f".{self.output.name}-", dir=self.output.parent))
        return self.new

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            shutil.rmtree(self.new, ignore_errors=True)
            return
        if self.output.is_dir():
            self.output.rmdir()
        self.new.chmod(0o755)
        self.new.rename(self.output)


def _merge(spec: Spec, folder: Path, result: dict[str, Any], new: Path) -> None:
    import torch
    from bitsandbytes.nn.modules import Linear4bit
    from peft import PeftModel
    from transformers import AutoTokenizer

    from training_image import model as models

    models.quiet()
    trained = spec.train.model_copy(update={"method": result["method"]})
    plain = spec.model.model_copy(update={"attention": "auto"})  # nothing attends here
    labels = result["evaluations"]["tuned"].get("labels") or ()
    setting = models.choose(spec.model_copy(update={"train": trained, "model": plain}), folder, labels=labels)
    base = models.load_base(setting)
    if any(isinstance(module, Linear4bit) for module in base.modules()):
        base = base.dequantize()
    model = PeftModel.from_pretrained(base.to(torch.float32), str(folder / "adapter"))
    merged = model.merge_and_unload(safe_merge=True).to(torch.bfloat16)
    merged.config.dtype = torch.bfloat16
    if "quantization_config" in vars(merged.config):
        del merged.config.quantization_config
    merged.save_pretrained(str(new))
    AutoTokenizer.from_pretrained(str(folder / "adapter")).save_pretrained(str(new))


def _evaluate(spec: Spec, folder: Path, result: dict[str, Any], new: Path) -> Evaluated:
    from training_image import model as models
    from training_image.data import load_splits, render_splits, renderer_of
    from training_image.evaluate import Evaluator

    splits = load_splits(spec, Path.cwd())
    here = spec.model_copy(update={"train": spec.train.model_copy(update={"method": "lora"})})
    # This machine need not take the attention that the job's own one took.
    merged = here.model_copy(update={"model": spec.model.model_copy(update={"id": str(new), "attention": "auto"})})
    setting = models.choose(merged, new, labels=splits.labels)
    renderer = renderer_of(models.load_tokenizer(setting), here, splits.labels, setting.config)
    render_splits(here, splits, renderer)  # drops the rows that the job dropped
    with (folder / "predictions" / "tuned.jsonl").open(encoding="utf-8") as lines:
        before = [json.loads(line) for line in lines]
    if [row["id"] for row in before] != [example.id for example in splits.test]:
        raise InputError("the test rows are not those of the job any more", hint="put the job's data back as they were")
    evaluator = Evaluator(here, splits, renderer)
    after = evaluator.tuned(models.load_base(setting).eval())
    metric, tuned = result["task"]["metric"], result["evaluations"]["tuned"]
    pairs = zip(before, after.predictions, strict=True)
    # One test row, or one group, has no interval: then the merged model may not be worse at all.
    low, high = (tuned["metrics"][metric] if bound is None else bound for bound in tuned["ci95"][metric])
    found = Evaluated(
        metric=metric,
        adapter=tuned["metrics"][metric],
        ci95=(low, high),
        merged=after.metrics[metric],
        same_answers=sum(one["prediction"] == two["prediction"] for one, two in pairs),
        n=after.n,
    )
    worse = found.merged < low if evaluator.metrics[metric].higher_is_better else found.merged > high
    if worse:
        told = f"{metric} fell from {found.adapter:.4f} to {found.merged:.4f}, out of {low:.4f} to {high:.4f}"
        raise NotAsGood(f"the merged model is not as good as the adapter: {told}")
    return found
