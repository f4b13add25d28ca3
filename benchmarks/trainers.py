"""The trainers that are compared, on the same rows: ours, transformers' own with peft and bitsandbytes, and Unsloth's.

All begin with the same base in four bits and the same adapter on all linear layers, and have the same rate, optimizer,
rows a step, supervised tokens and gradient checkpointing. The others run at their best: rows of like length together,
padded to the longest of a micro-batch, and the largest micro-batch that fits.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from training_image import model as models
from training_image.batches import supervised_tokens
from training_image.checkpoints import Checkpoints, adapter_state, load_adapter_state
from training_image.data import Sample
from training_image.data.examples import IGNORED
from training_image.errors import is_out_of_memory
from training_image.platform import StopSignal
from training_image.spec import Spec
from training_image.train import Hooks, Trainer, plan_steps


@dataclass(frozen=True, slots=True)
class Work:
    """What is trained."""

    spec: Spec
    setting: models.Setting
    train: Sequence[Sample]
    validation: Sequence[Sample]
    """Rows whose loss is compared afterwards."""
    pad: int
    warm_up: int = 0
    """Steps before the clock starts."""
    micro_batch: int | None = None
    """Rows that the warm-up found to fit; None: the whole step is tried first."""


def run(trainer: str, work: Work) -> dict[str, Any]:
    """Train once; speed counts each row's own tokens, however they were laid or padded."""
    models.quiet()
    loads: dict[str, Callable[[Work], Any]] = {"ours": _our_model, "unsloth": _unsloth_model, "stock": _plain_model}
    load = loads.get(trainer, _written_out)
    model = load(work)
    train: Callable[[Any, Work, Path], dict[str, Any]] = {"ours": _ours, "unsloth": _unsloth}.get(trainer, _stock)
    with tempfile.TemporaryDirectory() as folder:
        if work.warm_up:
            warm = train(model, _short(work), Path(folder, "warm-up"))
            work = replace(work, micro_batch=warm.get("micro_batch_rows"))
        if work.setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        told = train(model, work, Path(folder, "run"))
        _wait(work.setting.device)
        seconds = time.perf_counter() - start
    epochs = work.spec.train.epochs
    tokens = epochs * sum(len(sample.input_ids) for sample in work.train)
    return told | {
        "seconds": round(seconds, 3),
        "tokens_per_second": tokens / seconds,
        "supervised_tokens_per_second": epochs * sum(sample.supervised for sample in work.train) / seconds,
        "peak_memory_gib": _peak(),
        "validation_loss": _loss(model, work.validation, work.setting),
    }


def _short(work: Work) -> Work:
    """The warm-up: the first steps' rows, at a rate that leaves the adapter as it is."""
    train = work.spec.train.model_copy(update={"learning_rate": 1e-12})
    rows = work.train[: work.warm_up * train.batch_size]
    return replace(work, spec=work.spec.model_copy(update={"train": train}), train=rows)


def _rate(work: Work, model: Any) -> float:
    return models.learning_rate(work.spec, models.parameters(model))


def _our_model(work: Work) -> Any:
    return models.add_adapter(models.load_base(work.setting), work.spec)


def _ours(model: Any, work: Work, folder: Path) -> dict[str, Any]:
    settings = work.spec.train
    trainer = Trainer(model, work.train, work.setting, settings, _rate(work, model), work.pad)
    trainer.probe()
    hooks = Hooks(
        checkpoints=Checkpoints(folder, "benchmark"),
        validate=lambda model: ("loss", 0.0, {}),
        higher_is_better=False,
        report=lambda line: None,
        stop=StopSignal(),
    )
    done = trainer.fit(plan_steps(settings, len(work.train), None), hooks, trainer.restore(hooks.checkpoints))
    told = trainer.resolved()
    kept = {name: told[name] for name in ("micro_batch_tokens", "batching", "checkpointing")}
    return {"steps": done.step, "steps_seconds": round(done.seconds, 3), "attention": trainer.attention, **kept}


def _plain_model(work: Work) -> Any:
    """As the guides of transformers, peft and bitsandbytes do it."""
    return _with_adapter(_four_bits(work), work)


def _written_out(work: Work) -> Any:
    """The same without its four bits: the weights that they stand for."""
    return _with_adapter(_four_bits(work).dequantize().to(work.setting.dtype), work)


def _four_bits(work: Work) -> Any:
    dtype = work.setting.dtype
    return AutoModelForCausalLM.from_pretrained(
        work.setting.source,
        dtype=dtype,
        device_map={"": str(work.setting.device)},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    )


def _with_adapter(base: Any, work: Work) -> Any:
    train = work.spec.train
    torch.manual_seed(train.seed)
    rslora = train.variant == "rslora"
    config = LoraConfig(r=train.rank, lora_alpha=train.alpha, use_rslora=rslora, target_modules="all-linear")
    return get_peft_model(base, config)


def _stock(model: Any, work: Work, folder: Path) -> dict[str, Any]:
    from transformers import Trainer as StockTrainer
    from transformers import TrainingArguments

    def fit(rows: int) -> int:
        trainer = StockTrainer(
            model=model,
            args=TrainingArguments(**_arguments(work, model, folder, rows)),
            train_dataset=_rows(work),
            data_collator=_collator(work),
        )
        return int(trainer.train().global_step)

    return _largest(model, work, fit)


def _unsloth_model(work: Work) -> Any:
    from unsloth import FastLanguageModel

    train = work.spec.train
    model, _ = FastLanguageModel.from_pretrained(
        work.setting.source,
        max_seq_length=max(len(sample.input_ids) for sample in work.train),
        dtype=work.setting.dtype,
        load_in_4bit=train.method == "qlora",
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=train.rank,
        lora_alpha=train.alpha,
        lora_dropout=0,
        use_rslora=train.variant == "rslora",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if train.checkpointing == "on" else False,
        random_state=train.seed,
    )


def _unsloth(model: Any, work: Work, folder: Path) -> dict[str, Any]:
    from datasets import Dataset
    from unsloth import UnslothTrainer, UnslothTrainingArguments

    def fit(rows: int) -> int:
        arguments = _arguments(work, model, folder, rows) | {"gradient_checkpointing": False}  # the model has its own
        trainer = UnslothTrainer(
            model=model,
            args=UnslothTrainingArguments(**arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
            train_dataset=Dataset.from_list(_rows(work)),
            data_collator=_collator(work),
        )
        return int(trainer.train().global_step)

    return _largest(model, work, fit)


def _largest(model: Any, work: Work, fit: Callable[[int], int]) -> dict[str, Any]:
    """Train with the largest micro-batch that fits: the whole step, or a half of it, or a quarter, ..."""
    rows, initial = work.micro_batch or work.spec.train.batch_size, adapter_state(model)
    while True:
        try:
            told = {"steps": fit(rows), "micro_batch_rows": rows, "batching": "padded, rows of like length together"}
            return told | {"checkpointing": work.spec.train.checkpointing}
        except RuntimeError as error:
            if not is_out_of_memory(error) or rows == 1:
                raise
        torch.cuda.empty_cache()
        load_adapter_state(model, initial)
        rows //= 2


def _rows(work: Work) -> list[dict[str, list[int]]]:
    return [
        {"input_ids": row.input_ids, "labels": row.labels, "attention_mask": [1] * len(row.input_ids)}
        for row in work.train
    ]


def _collator(work: Work) -> Callable[[list[dict[str, list[int]]]], dict[str, torch.Tensor]]:
    """Pads each micro-batch to its longest row, as transformers' own collators do."""
    fill = {"input_ids": work.pad, "labels": -100, "attention_mask": 0}

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        return {
            name: torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])
            for name, value in fill.items()
        }

    return collate


def _arguments(work: Work, model: Any, folder: Path, rows: int) -> dict[str, Any]:
    settings, device = work.spec.train, work.setting.device.type
    frugal = settings.checkpointing == "on"
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": settings.batch_size // rows,
        "num_train_epochs": settings.epochs,
        "learning_rate": _rate(work, model),
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup,
        "train_sampling_strategy": "group_by_length",
        "bf16": work.setting.dtype == torch.bfloat16,
        "fp16": work.setting.dtype == torch.float16,
        "gradient_checkpointing": frugal,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if frugal else None,
        "optim": "paged_adamw_8bit" if device == "cuda" else "adamw_torch",
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "seed": settings.seed,
    }


def _loss(model: Any, samples: Sequence[Sample], setting: models.Setting) -> float:
    """Nats a supervised token, row by row and by no code of ours, so that it is the same for all."""
    model.eval()
    mixed, total = setting.dtype != torch.float32, 0.0
    with torch.no_grad(), torch.autocast(setting.device.type, setting.dtype, enabled=mixed):
        for sample in samples:
            labels = torch.tensor(sample.labels[1:], device=setting.device)
            logits = model(input_ids=torch.tensor([sample.input_ids], device=setting.device)).logits[0, :-1]
            kept = labels != IGNORED
            total += float(torch.nn.functional.cross_entropy(logits[kept].float(), labels[kept], reduction="sum"))
    return total / supervised_tokens(samples)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
