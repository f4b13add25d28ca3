"""Writes a merged checkpoint as a GGUF file, loads it back and compares: for llama.cpp, Ollama and their kin.

The converter of llama.cpp is taken where the user has it: it knows every model. Else this writer on the ``gguf``
package does the Llama-like shapes (Llama without biases, Mistral as far as its sliding window reaches, Qwen2) with a
byte-level BPE tokenizer, and refuses all others.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_image.errors import InputError

CONVERTER = "convert_hf_to_gguf.py"
"""llama.cpp's own, if it is on the PATH."""
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""Name at transformers: name in GGUF."""
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = _ENDINGS + r"\p{N}{1,3}" + _REST
_QWEN_2 = _ENDINGS + r"\p{N}" + _REST
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS = {
    (("gpt-2",), False): "gpt-2",
    (("digits", "gpt-2"), False): "smollm",
    ((_QWEN_2, "bytes"), False): "qwen2",
    ((_LLAMA_3, "bytes"), False): "smaug-bpe",
    ((_LLAMA_3, "bytes"), True): "llama-bpe",
    ((_TEKKEN, "bytes"), True): "tekken",
}
"""llama.cpp's name (src/llama-vocab.cpp) by the steps that split a text into words, and by whether a word that is a
token as a whole is never merged from its parts."""
_TOLERANCE = 0.05
"""Largest difference of logits that bf16 and the order of sums explain; a wrong layout moves them by whole units."""
_HINT = f"put llama.cpp's {CONVERTER} on the PATH, or take export --merged"


def write(merged: Path, target: Path, base_model: str) -> str:
    """Write ``target`` from a merged checkpoint; gives the writer's name. Raises InputError where that cannot be."""
    converter = shutil.which(CONVERTER)
    if converter is None:
        _write(merged, target, base_model)
        return "ftlaunch"
    command = [sys.executable, converter, str(merged), "--outfile", str(target), "--outtype", "bf16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise InputError(f"{converter} failed: {last}", hint=f"run it by hand on {merged}")
    return "llama.cpp"


def compare(merged: Path, target: Path) -> float:
    """Load both with transformers; the largest difference of their logits on the tokenizer's own chat sample.

    Raises InputError where they differ by more than rounding, or give another text other tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "The quick brown fox said: 12 + 30 = 42, naïve café!\n"
    here = {"gguf_file": target.name}
    one, two = AutoTokenizer.from_pretrained(str(merged)), AutoTokenizer.from_pretrained(str(target.parent), **here)
    ids = one(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    if ids.tolist() != two(text, return_tensors="pt", add_special_tokens=False)["input_ids"].tolist():
        raise InputError("the GGUF file's tokenizer gives other tokens than the model's", hint=_HINT)
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(str(merged), dtype=torch.float32)(ids).logits
        after = AutoModelForCausalLM.from_pretrained(str(target.parent), dtype=torch.float32, **here)(ids).logits
    difference = float((before - after).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(before.abs().max())):
        raise InputError(f"the GGUF file's logits are {difference:.3g} off the merged model's", hint=_HINT)
    return difference


def _write(merged: Path, target: Path, base_model: str) -> None:
    import gguf

    config: dict[str, Any] = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    kind = config["model_type"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if kind not in _ARCHITECTURES:
        raise InputError(f"a {kind} model cannot be written as GGUF here", hint=_HINT)
    if rope.get("rope_type", "default") != "default":
        raise InputError(f"{rope['rope_type']} rotary positions cannot be written as GGUF here", hint=_HINT)
    if _ARCHITECTURES[kind] == "llama" and config.get("attention_bias"):
        # transformers reads them back in another order than llama.cpp, so that nothing here could vouch for them.
        raise InputError("a Llama with biases in its attention cannot be written as GGUF here", hint=_HINT)
    writer = gguf.GGUFWriter(str(target), _ARCHITECTURES[kind])
    writer.add_name(base_model)
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_BF16))
    _add_shape(writer, config, rope)
    _add_tokenizer(writer, merged, config)
    _add_tensors(writer, merged, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: Any, config: dict[str, Any], rope: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_vocab_size(config["vocab_size"])
    # There is no sliding window in these shapes; as far as one reaches, attention is the same without it.
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    writer.add_context_length(min(config["max_position_embeddings"], window or math.inf))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: Any, merged: Path, config: dict[str, Any]) -> None:
    from gguf import TokenType
    from transformers import AutoTokenizer

    told: dict[str, Any] = json.loads((merged / "tokenizer.json").read_text(encoding="utf-8"))
    if told["model"]["type"] != "BPE" or told["model"].get("byte_fallback") or "ByteLevel" not in json.dumps(told):
        raise InputError("only byte-level BPE tokenizers can be written as GGUF here", hint=_HINT)
    tokens = [f"[PAD{place}]" for place in range(config["vocab_size"])]
    types = [int(TokenType.UNUSED)] * len(tokens)
    for token, place in told["model"]["vocab"].items():
        tokens[place], types[place] = token, int(TokenType.NORMAL)
    for added in told["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(told))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in told["model"]["merges"]])
    tokenizer = AutoTokenizer.from_pretrained(str(merged))
    for name, place in (
        ("bos", tokenizer.bos_token_id),
        ("eos", tokenizer.eos_token_id),
        ("pad", tokenizer.pad_token_id),
    ):
        if place is not None:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", place)
    writer.add_bool("tokenizer.ggml.add_bos_token", bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]))
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _pre_tokenizer(told: dict[str, Any]) -> str:
    """How llama.cpp is to split words, out of ``tokenizer.json``; a wrong name gives other tokens without a word."""
    top = told["pre_tokenizer"] or {}
    steps = tuple(_step(each) for each in top.get("pretokenizers", [top]))
    name = _PRE_TOKENIZERS.get((steps, bool(told["model"].get("ignore_merges"))))
    if name is None:
        raise InputError("the way this tokenizer splits words has no known name in a GGUF file", hint=_HINT)
    return name


def _step(told: dict[str, Any]) -> str:
    match told:
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}:
            return str(regex)
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Removed", "invert": True}:
            return str(regex)  # the matches are kept, and there is nothing between them
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "gpt-2" if told.get("use_regex", True) else "bytes"
    return ""


def _add_tensors(writer: Any, merged: Path, config: dict[str, Any]) -> None:
    import gguf
    import numpy as np

    arch = {name: each for each, name in gguf.MODEL_ARCH_NAMES.items()}[_ARCHITECTURES[config["model_type"]]]
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    interleaved = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    for name, values in _weights(merged):
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise InputError(f"the tensor {name} has no place in a GGUF file", hint=_HINT)
        layer = name.split(".")[-2]
        if _ARCHITECTURES[config["model_type"]] == "llama" and layer in interleaved:
            # llama.cpp turns neighbouring pairs of a head, transformers its two halves.
            split = values.reshape(interleaved[layer], 2, -1, *values.shape[1:])
            values = np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)
        if values.ndim == 1:
            writer.add_tensor(new, values)
            continue
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(new, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _weights(merged: Path) -> Iterator[tuple[str, Any]]:
    """Names and fp32 arrays of a checkpoint's weights."""
    from safetensors.torch import load_file

    for path in sorted(merged.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            yield name, tensor.float().numpy()
