"""The base model as the device takes it best, the adapter on it, and the adapter loaded afresh.

The base is loaded in NF4 with double quantisation (QLoRA, Dettmers 2023) or in the compute type (LoRA). Nothing is
lifted to fp32 but the adapter's own weights: `prepare_model_for_kbit_training` would do so with embeddings and head,
4 GB of an 8B model with a vocabulary of 128k.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from bitsandbytes.nn.modules import Linear4bit
from huggingface_hub import try_to_load_from_cache
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.utils import logging as transformers_logging

from training_image.data.encoder import is_encoder
from training_image.errors import InputError
from training_image.hub import offline_if_out_of_reach
from training_image.linear import quicken
from training_image.memory import free_bytes
from training_image.spec import Spec

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_HEADS = ["classifier", "score", "pre_classifier"]
"""What transformers calls the head of a sequence classification; never quantised."""
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
    """The commit of the hub that everything of the base is loaded from; of a folder, and where the cache knows no
    commit, what the job says."""
    config: Any
    """The base's own config, as transformers reads it."""
    labels: tuple[str, ...] = ()
    """Of an encoder, which has a head with one score each; of a decoder none."""
    sharded: bool = False
    """Whether each process keeps a part of the base only (`training_image.sharding`)."""
    any_kernel: bool = True
    """Whether packed rows may take another kernel than the attention implementation named (``attention: auto``)."""
    why: str = ""
    """Why this method."""

    @property
    def encoder(self) -> bool:
        """Whether the base is an encoder with a head."""
        return bool(self.labels)

    @property
    def dtype_name(self) -> str:
        """``float32`` and the like."""
        return str(self.dtype).removeprefix("torch.")


def quiet() -> None:
    """Leave the output to our own lines: no bars (they are no lines), no libraries' hints."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", category=FutureWarning, message="`past_key_values`")


def choose(spec: Spec, data: Path, local_rank: int = 0, labels: Sequence[str] = ()) -> Setting:
    """Choose device, compute type and method; a folder ``model`` among the data is the base.

    ``labels``: those of a classification, which an encoder needs. Raises InputError for a model that is not there, an
    encoder that is asked to write, or attention that cannot be trained here.
    """
    staged = data / spec.model.id
    local = staged if staged.is_dir() else Path(spec.model.id)
    source = str(local) if local.is_dir() else spec.model.id
    if not local.is_dir():
        offline_if_out_of_reach()
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    dtype = _DTYPES[spec.model.dtype] if spec.model.dtype != "auto" else _best_dtype(device)
    auto = spec.model.attention == "auto"
    config = _config(source, spec.model.revision)
    encoder = is_encoder(config)
    attention = _attention(config, encoder) if auto else spec.model.attention
    if encoder and spec.task.type != "classification":
        raise InputError(
            f"{spec.base_model} is an encoder ({config.model_type}): it cannot write the answers of {spec.task.type}",
            hint="Take a causal model, or task.type: classification.",
        )
    if attention == "flex_attention" and device.type == "cpu":  # torch would say so after the baselines only
        raise InputError(
            "model.attention: flex_attention cannot be trained on a CPU, torch has no backward pass for it there",
            hint="Use model.attention: auto, or a GPU.",
        )
    forced = spec.train.method
    method, why = (forced, "as the job says") if forced != "auto" else _method(config, device, encoder)
    heads = tuple(labels) if encoder else ()
    told = (device, dtype, method, attention, source, _commit(source, spec.model.revision), config, heads)
    return Setting(*told, any_kernel=auto, why=why)


def load_tokenizer(setting: Setting) -> Any:
    """The base's tokenizer. Raises InputError for a model that is not there."""
    return _load(AutoTokenizer, setting, {})


def padding(tokenizer: Any, config: Any) -> int:
    """The token that fills up short rows; masked, so any will do where the model has no embedding for the own one."""
    own = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    return 0 if own is None or (vocabulary is not None and own >= vocabulary) else int(own)


def load_base(setting: Setting) -> Any:
    """The base model, frozen; on the CPU where it is to be sharded. Raises InputError for a model that is not there or
    cannot be read."""
    options: dict[str, Any] = {"dtype": setting.dtype, "attn_implementation": setting.attention}
    if setting.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=setting.dtype,
            llm_int8_skip_modules=_HEADS if setting.encoder else None,
        )
    options["device_map"] = {"": "cpu" if setting.sharded else str(setting.device)}
    if setting.encoder:
        torch.manual_seed(0)  # for the head, which is new; the adapter's files hold it
        options["id2label"] = dict(enumerate(setting.labels))
        options["label2id"] = {label: place for place, label in enumerate(setting.labels)}
        options["ignore_mismatched_sizes"] = True
    model = _load(AutoModelForSequenceClassification if setting.encoder else AutoModelForCausalLM, setting, options)
    if setting.method == "qlora" and setting.device.type == "cpu" and not setting.sharded and _fits_dequantised(model):
        # The very weights that NF4 stands for, written out once: same adapter, no dequantising in every step.
        model = model.dequantize()
        model = model.to(setting.dtype)
    elif setting.method == "qlora" and setting.device.type == "cpu":
        _keep_exact_kernels(model)
    quicken(model)
    model.requires_grad_(False)
    if not setting.encoder:
        model.config.use_cache = True
    return model


def add_adapter(model: Any, spec: Spec, *, encoder: bool = False) -> Any:
    """Put a fresh LoRA adapter, its weights in fp32, on all linear layers of the base; of an encoder all but its head,
    which is trained whole.

    ``train.variant`` pissa takes the base's principal components out of its weights. Raises InputError for what the
    variant or ``train.modules_to_save`` forbid.
    """
    train = spec.train
    torch.manual_seed(train.seed)
    if train.variant == "pissa" and any(isinstance(module, Linear4bit) for module in model.modules()):
        raise InputError("train.variant: pissa needs a base that is not in four bits", "Set train.method: lora.")
    missing = set(train.modules_to_save) - {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing:
        raise InputError(f"train.modules_to_save: the model has no module {sorted(missing)[0]!r}")
    head = _head(model) if encoder else []
    config = LoraConfig(
        r=train.rank,
        lora_alpha=train.rank if train.variant == "pissa" else train.alpha,
        lora_dropout=train.dropout,
        use_rslora=train.variant == "rslora",
        use_dora=train.variant == "dora",
        init_lora_weights="pissa" if train.variant == "pissa" else True,
        modules_to_save=[*train.modules_to_save, *head] or None,
        exclude_modules=[name for name, _ in model.named_modules() if name.startswith(tuple(head))] if head else None,
        ensure_weight_tying=bool(train.modules_to_save),
        target_modules="all-linear",
        task_type="SEQ_CLS" if encoder else "CAUSAL_LM",
    )
    made = get_peft_model(model, config)
    for weight in made.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return quicken(made)


def save_initial(model: Any, folder: Path) -> None:
    """Save an untrained adapter, so that `Outputs.adapter` can take from the trained one what it took from the base."""
    config = model.peft_config["default"]
    before, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(str(folder), save_embedding_layers=False)
    config.init_lora_weights = before


def base_is_changed(spec: Spec, setting: Setting) -> bool:
    """Whether the training leaves other weights in the base than it began with, so that it has to be read again."""
    return spec.train.variant == "pissa" or bool(spec.train.modules_to_save) or setting.encoder


def load_adapter(base: Any, folder: Path) -> Any:
    """A base with the saved adapter on it, read from its files, ready to be evaluated."""
    return quicken(PeftModel.from_pretrained(base, str(folder)).eval())


def parameters(model: Any) -> int:
    """Number of the base's weights, as published (4-bit weights counted one by one)."""
    return int(model.num_parameters())


def adapter_bytes(model: Any, rank: int, modules_to_save: Sequence[str] = (), *, encoder: bool = False) -> int:
    """Size of a LoRA adapter on all linear layers but the head, in fp32 (4-bit layers tell their true shape too), and
    of the modules that are trained whole beside it: those of the job, and an encoder's head."""
    names = (*modules_to_save, *(_head(model) if encoder else ()))
    whole = [module for name, module in model.named_modules() if name.endswith(names)]
    apart = {id(part) for module in whole for part in module.modules()} | {id(model.get_output_embeddings())}
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and id(m) not in apart]
    weights: dict[int, int] = {id(weight): weight.numel() for module in whole for weight in module.parameters()}
    return 4 * (rank * sum(layer.in_features + layer.out_features for layer in linear) + sum(weights.values()))


def learning_rate(spec: Spec, size: int, *, encoder: bool = False) -> float:
    """Peak rate: the job's own, else by size. LoRA takes ten times the rate of full tuning; tiny models more.

    Encoders: 5e-4, as RoBERTa was tuned in LoRA (Hu 2021).
    """
    if spec.train.learning_rate is not None:
        return spec.train.learning_rate
    if encoder:
        return 5e-4
    return 1e-4 if size >= 13e9 else 2e-4 if size >= 1e9 else 1e-3


def without_weights(config: Any) -> Any:
    """A causal model of that shape which takes no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        # Before Ampere (a T4, say) there are no bf16 units.
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    # A CPU takes up to thirty times as long in bf16 as in fp32, even some that name bf16 units among their flags.
    return torch.float32


def _method(config: Any, device: torch.device, encoder: bool) -> tuple[Literal["qlora", "lora"], str]:
    """The method, and why."""
    if encoder:
        return "lora", "an encoder is small, and taking it out of four bits would cost time in every pass"
    if device.type == "cpu":
        return "qlora", "the default on a CPU, where the four bits are written out once if the memory allows it"
    size = sum(weight.numel() for weight in without_weights(config).parameters())
    free = torch.cuda.mem_get_info(device)[0]
    why = f"{size / 1e9:.2f}B weights, {free / 2**30:.1f} GiB free on the GPU"
    return ("lora" if free > _PLENTY * 2 * size else "qlora"), why


def _attention(config: Any, encoder: bool) -> str:
    """``sdpa`` where transformers has it for the family, else ``eager`` (DeBERTa, Gemma 2, gpt-oss)."""
    factory: Any = AutoModelForSequenceClassification if encoder else AutoModelForCausalLM
    kind = factory._model_mapping.get(type(config), None)
    return "sdpa" if getattr(kind, "_supports_sdpa", True) else "eager"


def _config(source: str, revision: str | None) -> Any:
    try:
        return AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise _unloadable(source, error) from error


def _commit(source: str, revision: str | None) -> str | None:
    """The commit that a model's config, just loaded, is of by the cache's account: a branch may move on before the
    weights are loaded, and before anybody loads the adapter."""
    if Path(source).is_dir():
        return revision
    found = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else revision


def _load(factory: Any, setting: Setting, options: dict[str, Any]) -> Any:
    try:
        return factory.from_pretrained(setting.source, revision=setting.revision, **options)
    except ImportError as error:
        hint = "Use model.attention: auto, and a model that needs no package of its own."
        raise InputError(f"the model {setting.source} cannot be loaded: {error}", hint) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise _unloadable(setting.source, error) from error


def _unloadable(source: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        f"the model {source} cannot be loaded: {reason}",
        hint="Check model.id, model.revision and model.attention; a hub model needs a network, a gated one HF_TOKEN "
        "among `secrets`.",
    )


def _keep_exact_kernels(model: Any) -> None:
    """Forbid bitsandbytes' kernel for AVX-512 BF16: it rounds to bf16, gives no gradient (training on would be silently
    wrong), and a weight that was once repacked for it by an evaluation stays so."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _head(encoder: Any) -> list[str]:
    """The modules behind an encoder's layers, its pooler among them: new, or made for another task, so that an adapter
    without them would stand on whatever weights the next reader's head happens to begin with."""
    body = encoder.base_model_prefix
    last = [f"{body}.{name}" for name, _ in encoder.get_submodule(body).named_children() if name == "pooler"]
    behind = [name for name, part in encoder.named_children() if name != body and any(True for _ in part.parameters())]
    return behind + last


def _fits_dequantised(model: Any) -> bool:
    return free_bytes(torch.device("cpu")) > 3 * 4 * parameters(model)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without gradients and dropout; the model goes back to the mode that it was in.

    Under autocast where the base is in 16 bits, as in training: modules trained whole are in fp32 beside it.
    """
    training, dtype = model.training, model.dtype
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            yield
    finally:
        model.train(training)
