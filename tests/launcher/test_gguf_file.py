"""What our own GGUF writer refuses, each with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from launcher import gguf_file
from tests.tiny_model import MODEL
from training_image.errors import InputError


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "merged"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


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
