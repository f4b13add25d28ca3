"""The entrypoint as the services see it: exit codes, stops, kills, resumes, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.small_disk import fill, mounted
from tests.tiny_model import MODEL
from tests.training.conftest import Entry
from training_image import model as models
from training_image.data import Renderer
from training_image.data.examples import Example
from training_image.given import look, read_spec
from training_image.platform import StopSignal, detect
from training_image.run import run
from training_image.train import Trainer


def adapter(entry: Entry) -> str:
    return hashlib.sha256((entry.folder / "output/adapter/adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("step", [1, 4, 7])
def test_killed_at_any_step_the_trajectory_is_the_same(straight: Entry, entry: Entry, step: int) -> None:
    entry.write(checkpoint_steps=3)
    first = entry.start()
    entry.until_step(step)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    entry.run()
    expected, found = straight.losses(), entry.losses()
    assert found.keys() == expected.keys()
    assert max(abs(found[at] - expected[at]) for at in expected) < 1e-4
    assert entry.result["evaluations"]["tuned"]["metrics"] == straight.result["evaluations"]["tuned"]["metrics"]
    assert entry.result["training"]["resumed_from"] == (None if step < 3 else 3 * (step // 3))


def test_sigterm_saves_and_a_next_start_goes_on(straight: Entry, entry: Entry) -> None:
    entry.write()
    first = entry.start()
    entry.until_step(2)
    first.send_signal(signal.SIGTERM)
    text, _ = first.communicate(timeout=60)
    assert first.returncode == 143, text
    assert "stopped after step" in text or "stopped inside a step" in text  # it comes when it comes
    entry.run()
    assert entry.result["training"]["resumed_from"] >= 2
    expected, found = straight.losses(), entry.losses()
    assert max(abs(found[at] - expected[at]) for at in expected) < 1e-4


def test_the_same_seed_gives_the_same_adapter(straight: Entry, entry: Entry) -> None:
    entry.write()
    entry.run()
    assert adapter(entry) == adapter(straight)


def test_the_timings_say_where_all_seconds_went(entry: Entry) -> None:
    entry.write(max_steps=2)
    start = time.monotonic()
    entry.run()
    seconds, timings = time.monotonic() - start, entry.result["timings"]
    assert timings["import"] > 0
    assert 0.8 * seconds < sum(timings.values()) <= seconds  # the rest: the interpreter's own start and end


def test_the_saved_weights_are_an_adapter_of_every_linear_layer(straight: Entry) -> None:
    weights = load_file(straight.folder / "output/adapter/adapter_model.safetensors")
    layers = {name.rsplit(".lora_", 1)[0].rsplit(".", 1)[1] for name in weights}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(weight.abs().sum() > 0 for weight in weights.values())
    config = json.loads((straight.folder / "output/adapter/adapter_config.json").read_text())
    assert (config["r"], config["use_rslora"]) == (4, True)


def test_the_files_are_what_vllm_loads_as_a_lora(straight: Entry) -> None:
    """What its `PEFTHelper` reads of the config and refuses, and how its `LoRAModel` takes weights apart by name."""
    folder = straight.folder / "output" / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    wanted = {"r": 4, "peft_type": "LORA", "bias": "none", "use_dora": False, "modules_to_save": None}
    assert wanted.items() <= config.items()
    assert config["lora_alpha"] > 0
    for name, weight in load_file(folder / "adapter_model.safetensors").items():
        layer = r"base_model\.model\.model\.layers\.\d+\.(?:self_attn|mlp)"
        parts = re.fullmatch(layer + r"\.(\w+)\.lora_([AB])\.weight", name)
        assert parts, name  # no base_layer, no name of an adapter
        assert parts[1] in config["target_modules"]
        assert weight.shape["AB".index(parts[2])] == config["r"]


def test_the_way_rows_are_laid_out_can_be_forced_and_is_said(straight: Entry, entry: Entry) -> None:
    entry.write(batching="padded")
    assert "rows are padded, as the job says" in entry.run()
    assert [job.result["platform"]["batching"] for job in (straight, entry)] == ["packed", "padded"]
    assert entry.losses() == pytest.approx(straight.losses(), abs=1e-3)


def test_a_deadline_ends_the_training_with_everything_written(entry: Entry) -> None:
    entry.write(epochs=500.0)
    entry.run("--deadline", str(time.time() + 45))
    assert entry.result["training"]["stopped_by"] == "deadline"
    assert "tuned" in entry.result["evaluations"]
    assert (entry.folder / "output" / "manifest.json").exists()


def test_a_diverging_loss_stops_with_its_reason(entry: Entry) -> None:
    entry.write(learning_rate=1e4, epochs=20.0)
    text = entry.run(code=4)
    assert "train.learning_rate" in text


def test_a_model_that_is_not_there(entry: Entry) -> None:
    entry.write()
    path = entry.folder / "spec.json"
    path.write_text(path.read_text().replace("tiny_model/model", "tiny_model/nothing"))
    assert "cannot be loaded" in entry.run(code=2)


def write_with(entry: Entry, tokenizer: PreTrainedTokenizerFast) -> None:
    """A job whose model has another tokenizer."""
    entry.write()
    model = shutil.copytree(MODEL, entry.folder / "data" / "model")
    tokenizer.save_pretrained(str(model))
    path = entry.folder / "spec.json"
    path.write_text(path.read_text().replace(str(MODEL), "model"))


def test_rows_that_teach_nothing_but_the_end_of_an_answer(entry: Entry) -> None:
    """A tokenizer without the answers' letters makes nothing of them; the end token is supervised all the same."""
    raw = Tokenizer(BPE({"<|im_start|>": 0, "<|im_end|>": 1, "?": 2}, []))
    deaf = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>")
    deaf.chat_template = AutoTokenizer.from_pretrained(str(MODEL)).chat_template
    write_with(entry, deaf)
    text = entry.run(code=2)
    assert "every label is masked" in text
    assert "method qlora: the default on a CPU" in text


def test_a_token_that_was_added_to_the_tokenizer_alone(entry: Entry) -> None:
    own = AutoTokenizer.from_pretrained(str(MODEL))
    own.add_tokens(["Answer with"])
    write_with(entry, own)
    text = entry.run(code=2)
    assert "no embedding for: 'Answer with' (2048); it has 2048" in text
    assert "resize_token_embeddings" in text


def test_an_output_folder_that_cannot_be_written(entry: Entry) -> None:
    entry.write()
    (entry.folder / "file").write_text("")
    assert "cannot write to" in entry.run(code=2, output=entry.folder / "file" / "output")


def test_an_output_folder_that_holds_something(entry: Entry) -> None:
    entry.write()
    adapter = entry.folder / "output" / "adapter" / "adapter_model.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_text("mine")
    assert "is not empty: it holds adapter" in entry.run(code=2)
    assert adapter.read_text() == "mine"


def test_a_disk_that_is_full_from_the_start(entry: Entry) -> None:
    entry.write()
    with mounted(entry.folder / "disk", "8m") as disk:
        text = entry.run(code=2, output=disk / "output")
    assert f"the disk of {entry.folder / 'disk' / 'output'} has" in text
    assert "Free some space" in text


def test_a_disk_that_fills_up_while_it_trains(straight: Entry, entry: Entry) -> None:
    entry.write(checkpoint_steps=1)
    with mounted(entry.folder / "checkpoints", "200m") as disk:
        first = entry.start()
        entry.until_step(2)
        filler = fill(disk)
        text, _ = first.communicate(timeout=200)
        assert first.returncode == 2, text
        assert "No space left on device" in text
        assert "Traceback" not in text
        filler.unlink()
        entry.run()
    assert entry.result["training"]["resumed_from"] >= 1
    assert entry.losses() == pytest.approx(straight.losses(), abs=1e-4)


@pytest.mark.parametrize("wrong", ["spec", "rows", "output", "checkpoints"])
def test_what_is_wrong_with_the_files_is_told_before_the_frameworks_are_loaded(entry: Entry, wrong: str) -> None:
    entry.write()
    (entry.folder / "frameworks").mkdir()
    for name in ("transformers", "peft", "huggingface_hub"):
        (entry.folder / "frameworks" / f"{name}.py").write_text("raise SystemExit('it was loaded')\n")
    path, said = {
        "spec": ("spec.json", "spec.json"),
        "rows": ("data/train.jsonl", "train.jsonl: line 1 is not valid JSON"),
        "output": ("output", "cannot write to"),
        "checkpoints": ("checkpoints/job", "checkpoints holds the checkpoints of another job"),
    }[wrong]
    (entry.folder / "checkpoints").mkdir()
    (entry.folder / path).write_text('{"text": "this row never ends\n')
    assert said in entry.run(code=2, environment={"PYTHONPATH": str(entry.folder / "frameworks")})


def test_an_unknown_key_in_the_spec(entry: Entry) -> None:
    entry.write(lerning_rate=1.0)
    assert "train.lerning_rate" in entry.run(code=2)


def test_checkpoints_of_another_job_are_refused(straight: Entry, entry: Entry, tmp_path: Path) -> None:
    entry.write(epochs=1.0)
    text = entry.run("--checkpoints", str(straight.folder / "checkpoints"), code=2)
    assert "another job" in text


@pytest.mark.parametrize(
    ("train", "rank"), [({"variant": "pissa"}, 8), ({"variant": "lora", "modules_to_save": ["embed_tokens"]}, 4)]
)
def test_an_adapter_that_changed_the_base_stands_on_the_untouched_one(entry, train, rank):
    entry.write(max_steps=3, **train)
    entry.run()
    config = json.loads((entry.folder / "output" / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == rank
    assert bool(config["modules_to_save"]) == ("modules_to_save" in train)
    assert "tuned" in entry.result["evaluations"]


def test_a_base_that_the_training_changed_is_gone_before_it_is_read_again(entry, monkeypatch):
    """On a card that one base fills, a second one beside it would be an out-of-memory at the very end."""
    entry.write(max_steps=1, modules_to_save=["embed_tokens"])
    bases, optimizers, alive = [], [], []
    load, make = models.load_base, Trainer._optimizer

    def loaded(setting):
        alive.append([ref() is not None for ref in (*bases, *optimizers)])
        base = load(setting)
        bases.append(weakref.ref(base))
        return base

    def made(trainer):
        optimizer = make(trainer)
        optimizers.append(weakref.ref(optimizer))
        return optimizer

    monkeypatch.setattr(models, "load_base", loaded)
    monkeypatch.setattr(Trainer, "_optimizer", made)
    run_here(entry)
    assert alive == [[], [False, False]]


def run_here(entry: Entry) -> None:
    """Run a job in this process."""
    places = {"spec": "spec.json", "data": "data", "output": "output", "checkpoints": "checkpoints"}
    platform = detect({name: str(entry.folder / path) for name, path in places.items()})
    run(platform, look(platform, read_spec(platform)), StopSignal())


def test_the_base_is_loaded_and_each_prompt_rendered_once_for_all_evaluations(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero-shot, few-shot, two validations and the tuned model."""
    entry.write()
    path = entry.folder / "spec.json"
    path.write_text(path.read_text().replace('"max_length": 96', '"max_length": 256'))  # room for examples
    loaded: list[models.Setting] = []
    rendered: Counter[tuple[str, bool]] = Counter()
    load, render = models.load_base, Renderer.prompt

    def load_base(setting: models.Setting) -> Any:
        loaded.append(setting)
        return load(setting)

    def prompt(renderer: Renderer, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        rendered[example.id, bool(shots)] += 1
        return render(renderer, example, shots)

    monkeypatch.setattr(models, "load_base", load_base)
    monkeypatch.setattr(Renderer, "prompt", prompt)
    run_here(entry)
    assert len(entry.result["evaluations"]) == 4
    assert len(loaded) == 1
    assert set(rendered.values()) == {1}
    assert sorted(shots for _, shots in rendered) == [False] * 36 + [True] * 36  # 12 validation and 24 test rows
