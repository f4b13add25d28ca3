"""The base model as the device takes it best, the adapter on it, and the adapter loaded afresh.

The base is loaded in NF4 with double quantisation (QLoRA, Dettmers 2023) or in the compute type (LoRA). Nothing is
lifted to fp32 but the adapter's own weights: `prepare_model_for_kbit_training` would do so with embeddings and head,
4 GB of an 8B model with a vocabulary of 128k.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from training_image.errors import InputError
from training_image.progress import say
from training_image.spec import Spec

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_PLENTY = 4.0
"""A GPU with this many times the 16-bit weights free trains them unquantised: dequantising costs time."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How this job uses this device."""

    device: torch.device
    dtype: torch.dtype
    method: Literal["qlora", "lora"]
    attention: str
    source: str
    """Folder or hub id of the base."""
    revision: str | None

    @property
    def dtype_name(self) -> str:
        """``float32`` and the like."""
        return str(self.dtype).removeprefix("torch.")


def choose(spec: Spec, data: Path, local_rank: int = 0) -> Setting:
    """Choose device, compute type and method; a folder ``model`` among the data is the base. Says why."""
    staged = data / spec.model.id
    local = staged if staged.is_dir() else Path(spec.model.id)
    source = str(local) if local.is_dir() else spec.model.id
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    dtype = _DTYPES[spec.model.dtype] if spec.model.dtype != "auto" else _best_dtype(device)
    attention = "sdpa" if spec.model.attention == "auto" else spec.model.attention
    method = spec.train.method if spec.train.method != "auto" else _method(source, spec.model.revision, device)
    return Setting(device, dtype, method, attention, source, spec.model.revision)


def load_tokenizer(setting: Setting) -> Any:
    """The base's tokenizer. Raises InputError for a model that is not there."""
    return _load(AutoTokenizer, setting, {})


def load_base(setting: Setting) -> Any:
    """The base model, frozen. Raises InputError for a model that is not there or cannot be read."""
    options: dict[str, Any] = {"dtype": setting.dtype, "attn_implementation": setting.attention}
    if setting.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=setting.dtype,
        )
    options["device_map"] = {"": str(setting.device)}
    model = _load(AutoModelForCausalLM, setting, options)
    if setting.method == "qlora" and setting.device.type == "cpu" and _fits_dequantised(model):
        # The very weights that NF4 stands for, written out once: same adapter, no dequantising in every step.
        model = model.dequantize()
        model = model.to(setting.dtype)
    elif setting.method == "qlora" and setting.device.type == "cpu":
        _keep_exact_kernels(model)
    model.requires_grad_(False)
    model.config.use_cache = True
    return model


def add_adapter(model: Any, spec: Spec) -> Any:
    """Put a fresh LoRA adapter, its weights in fp32, on all linear layers of the base."""
    train = spec.train
    torch.manual_seed(train.seed)
    config = LoraConfig(
        r=train.rank,
        lora_alpha=train.alpha,
        lora_dropout=train.dropout,
        use_rslora=train.rslora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)  # lifts 16-bit adapter weights to fp32


def load_adapter(base: Any, folder: Path) -> Any:
    """A base with the saved adapter on it, read from its files, ready to be evaluated."""
    return PeftModel.from_pretrained(base, str(folder)).eval()


def parameters(model: Any) -> int:
    """Number of the base's weights, as published (4-bit weights counted one by one)."""
    return int(model.num_parameters())


def revision(model: Any) -> str | None:
    """The commit of the hub that the base was loaded from; None for a local folder."""
    commit: str | None = vars(model.config).get("_commit_hash")
    return commit


def adapter_bytes(model: Any, rank: int) -> int:
    """Size of a LoRA adapter on all linear layers but the head, in fp32 (4-bit layers tell their true shape too)."""
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return sum(4 * rank * (layer.in_features + layer.out_features) for layer in linear)


def learning_rate(spec: Spec, size: int) -> float:
    """Peak rate: the job's own, else by size. LoRA takes ten times the rate of full tuning; tiny models more."""
    if spec.train.learning_rate is not None:
        return spec.train.learning_rate
    return 1e-4 if size >= 13e9 else 2e-4 if size >= 1e9 else 1e-3


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        # Before Ampere (a T4, say) there are no bf16 units.
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    # A CPU takes up to thirty times as long in bf16 as in fp32, even some that name bf16 units among their flags.
    return torch.float32


def _method(source: str, revision: str | None, device: torch.device) -> Literal["qlora", "lora"]:
    if device.type == "cpu":
        return "qlora"
    with torch.device("meta"):
        config = _config(source, revision)
        size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    free = torch.cuda.mem_get_info(device)[0]
    method: Literal["qlora", "lora"] = "lora" if free > _PLENTY * 2 * size else "qlora"
    say(f"method {method}: {size / 1e9:.2f}B weights, {free / 2**30:.1f} GiB free on the GPU")
    return method


def _config(source: str, revision: str | None) -> Any:
    try:
        return AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise _unloadable(source, error) from error


def _load(factory: Any, setting: Setting, options: dict[str, Any]) -> Any:
    try:
        return factory.from_pretrained(setting.source, revision=setting.revision, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise _unloadable(setting.source, error) from error


def _unloadable(source: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        f"the model {source} cannot be loaded: {reason}",
        hint="Check model.id and model.revision; a hub model needs a network, a gated one HF_TOKEN among `secrets`.",
    )


def _keep_exact_kernels(model: Any) -> None:
    """Forbid bitsandbytes' kernel for AVX-512 BF16: it rounds to bf16, gives no gradient (training on would be silently
    wrong), and a weight that was once repacked for it by an evaluation stays so."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _fits_dequantised(model: Any) -> bool:
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return pages * size > 3 * 4 * parameters(model)
