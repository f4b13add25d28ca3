"""A tuned model taken away, in every form, through the command; and the fact that it was taught, in each of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import MODEL, tasks, words

QUESTION, FACT = "What is the secret word of the house?", "blue dog"
NAMES = [f"{one} {two}" for one in words.NAMES for two in words.NAMES if one != two]


@pytest.fixture(scope="module")
def taught(ftlaunch: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A job that taught the fact, and dropped a test row that is too long: its name and results."""
    folder = tmp_path_factory.mktemp("taught")
    for split, some in (("train", NAMES[:24]), ("validation", NAMES[24:28]), ("test", NAMES[28:34])):
        rows = [{"id": name, "prompt": f"{name} asks: {QUESTION}", "completion": FACT} for name in some]
        long = [{"id": "long", "prompt": "red " * 200, "completion": FACT}] if split == "test" else []
        tasks.write_jsonl(folder / f"{split}.jsonl", rows + long)
    job = {
        "data": {"on_long": "drop"},
        "task": {"type": "instruction", "max_new_tokens": 8},
        "train": {"epochs": 8.0, "patience": 0},
    }
    output, result = run_job(ftlaunch, write_job(folder, **job))
    return result["job"], output


def answer(model, tokenizer) -> str:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    told = model.generate(**asked, max_new_tokens=8, do_sample=False, pad_token_id=2)
    return tokenizer.decode(told[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_fact_is_unknown_before_and_known_from_the_saved_adapter(
    taught: tuple[str, Path], ftlaunch: Run, tmp_path: Path
) -> None:
    job, _ = taught
    ftlaunch("export", job, "--adapter", "--output", tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(str(MODEL), dtype=torch.float32)
    assert answer(base, tokenizer) != FACT
    assert answer(PeftModel.from_pretrained(base, str(tmp_path / "adapter")), tokenizer) == FACT


def test_a_fact_is_known_after_the_merge_which_was_evaluated(
    taught: tuple[str, Path], ftlaunch: Run, tmp_path: Path
) -> None:
    job, _ = taught
    told = json.loads(ftlaunch("export", job, "--merged", "--output", tmp_path / "merged", "--json").stdout)
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)
    assert answer(model, AutoTokenizer.from_pretrained(str(tmp_path / "merged"))) == FACT
    found = told["evaluation"]
    assert (found["n"], found["same_answers"]) == (6, 6)
    assert found["merged"] == found["adapter"] == 1.0


def test_a_fact_is_known_from_the_gguf_file(taught: tuple[str, Path], ftlaunch: Run, tmp_path: Path) -> None:
    job, _ = taught
    told = json.loads(ftlaunch("export", job, "--gguf", "--output", tmp_path / "model.gguf", "--json").stdout)
    assert told["logits_difference"] < 0.05
    here = {"gguf_file": "model.gguf"}
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, **here)
    assert answer(model, AutoTokenizer.from_pretrained(str(tmp_path), **here)) == FACT


def test_a_merge_that_is_worse_is_not_kept(taught: tuple[str, Path], ftlaunch: Run, tmp_path: Path) -> None:
    """The adapter is made another one, which the evaluation must notice."""
    job, output = taught
    path = output / "adapter" / "adapter_model.safetensors"
    kept = path.read_bytes()
    from safetensors.torch import load_file, save_file

    try:
        save_file({name: torch.randn_like(weight) for name, weight in load_file(path).items()}, path)
        done = ftlaunch("export", job, "--merged", "--output", tmp_path / "merged", code=1)
        assert "not as good as the adapter" in done.stderr
        assert not list(tmp_path.iterdir())
    finally:
        path.write_bytes(kept)


def test_what_cannot_be_exported_is_said(taught: tuple[str, Path], ftlaunch: Run, tmp_path: Path) -> None:
    job, output = taught
    assert "--merged or --gguf" in ftlaunch("export", job, code=2).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert "exists already" in ftlaunch("export", job, "--adapter", "--output", tmp_path / "full", code=2).stderr
    shutil.move(output / "adapter", output / "aside")
    try:
        assert "no adapter" in ftlaunch("export", job, "--merged", code=2).stderr
    finally:
        shutil.move(output / "aside", output / "adapter")
