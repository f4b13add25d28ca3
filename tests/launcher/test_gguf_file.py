"""What our own GGUF writer writes is read back as it was; what it refuses, each with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from launcher import gguf_file
from tests.tiny_model import MODEL
from training_image.errors import InputError


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "merged"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


SHAPE: dict[str, Any] = {
    **{"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 512},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3},
}
FAMILIES: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True, rope_theta=1e6)),
    "qwen2, untied": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=False)),
    "mistral": (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=None)),
    "mistral, wide heads": (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=128, head_dim=32)),
    "llama, untied": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=False, rms_norm_eps=1e-5)),
}


def drawn(folder: Path, family: str) -> Path:
    """A checkpoint in bf16 of weights by chance, its norms and biases among them."""
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    model = kind(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.3)
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_back_as_it_was(tmp_path: Path, family: str) -> None:
    from gguf import GGUFReader

    merged, target = drawn(tmp_path / "merged", family), tmp_path / "model.gguf"
    assert gguf_file.write(merged, target, "some/model") == "ftlaunch"
    assert gguf_file.compare(merged, target) < 1e-4
    told = GGUFReader(target)
    assert ("output.weight" in {tensor.name for tensor in told.tensors}) == (family != "qwen2")
    (reach,) = (field.contents() for name, field in told.fields.items() if name.endswith("context_length"))
    assert reach == (128 if family == "mistral, wide heads" else 512)


def test_biases_that_nothing_here_reads_back_are_refused(merged: Path) -> None:
    change(merged / "config.json", attention_bias=True)
    with pytest.raises(InputError, match="biases in its attention"):
        gguf_file.write(merged, merged.parent / "model.gguf", "some/model")


def test_another_shape_is_refused(merged: Path) -> None:
    change(merged / "config.json", model_type="mamba")
    with pytest.raises(InputError, match="a mamba model"):
        gguf_file.write(merged, merged.parent / "model.gguf", "some/model")


def test_scaled_positions_are_refused(merged: Path) -> None:
    change(merged / "config.json", rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0})
    with pytest.raises(InputError, match="llama3 rotary positions"):
        gguf_file.write(merged, merged.parent / "model.gguf", "some/model")


def test_another_tokenizer_is_refused(merged: Path) -> None:
    path = merged / "tokenizer.json"
    change(path, model=json.loads(path.read_text())["model"] | {"type": "Unigram"})
    with pytest.raises(InputError, match="byte-level BPE"):
        gguf_file.write(merged, merged.parent / "model.gguf", "some/model")


DIGITS = {"type": "Digits", "individual_digits": True}
WORDS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def split(name: str, **how: object) -> dict[str, object]:
    """As transformers splits the words of a GGUF file with this name."""
    step = {"type": "Split", "pattern": {"Regex": GGUF_PRE_TOKENIZER_SPLITS[name]}, "behavior": "Isolated"}
    return {"type": "Sequence", "pretokenizers": [step | {"invert": False} | how, WORDS | {"use_regex": False}]}


@pytest.mark.parametrize(
    ("steps", "whole", "name"),
    [
        (WORDS, False, "gpt-2"),
        (
            {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, WORDS]},
            False,
            "smollm",
        ),
        (split("qwen2"), False, "qwen2"),
        (split("llama-bpe"), True, "llama-bpe"),
        (split("llama-bpe", behavior="Removed", invert=True), True, "llama-bpe"),
        (split("smaug-bpe"), False, "smaug-bpe"),
        (split("tekken"), True, "tekken"),
    ],
)
def test_words_are_split_as_the_tokenizer_splits_them(merged: Path, steps: object, whole: bool, name: str) -> None:
    from gguf import GGUFReader

    path, target = merged / "tokenizer.json", merged.parent / "model.gguf"
    model = json.loads(path.read_text())["model"] | {"ignore_merges": whole}
    change(path, pre_tokenizer=steps, model=model)
    gguf_file.write(merged, target, "a/folder-of-any-name")
    assert GGUFReader(target).fields["tokenizer.ggml.pre"].contents() == name


@pytest.mark.parametrize("steps", [None, WORDS | {"add_prefix_space": True}, split("llama-bpe", behavior="Removed")])
def test_words_split_in_an_unknown_way_are_refused(merged: Path, steps: object) -> None:
    change(merged / "tokenizer.json", pre_tokenizer=steps)
    with pytest.raises(InputError, match="splits words"):
        gguf_file.write(merged, merged.parent / "model.gguf", "Qwen/Qwen2.5-0.5B")


def test_a_file_of_another_model_is_found_out(merged: Path) -> None:
    from safetensors.torch import load_file, save_file

    target = merged.parent / "model.gguf"
    gguf_file.write(merged, target, "some/model")
    assert gguf_file.compare(merged, target) < 0.05
    weights = load_file(merged / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    save_file(weights | {name: -weights[name]}, merged / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="logits are"):
        gguf_file.compare(merged, target)


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script under the name of llama.cpp's, the only thing on the PATH."""
    script = tmp_path / "tools" / gguf_file.CONVERTER
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    return script


def test_the_converter_of_llama_cpp_is_taken_where_it_is(merged: Path, converter: Path) -> None:
    converter.write_text("import json, sys; open(sys.argv[3], 'w').write(json.dumps(sys.argv[1:]))")
    target = merged.parent / "model.gguf"
    assert gguf_file.write(merged, target, "some/model") == "llama.cpp"
    assert json.loads(target.read_text()) == [str(merged), "--outfile", str(target), "--outtype", "bf16"]


def test_a_converter_that_fails_is_told_by_its_last_line(merged: Path, converter: Path) -> None:
    converter.write_text("import sys; sys.exit('a line before\\nModel Mamba is not supported')")
    with pytest.raises(InputError, match="failed: Model Mamba is not supported") as told:
        gguf_file.write(merged, merged.parent / "model.gguf", "some/model")
    assert told.value.hint == f"run it by hand on {merged}"
