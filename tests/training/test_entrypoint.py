"""The entrypoint as the services see it: exit codes, stops, kills, resumes, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training.conftest import Entry


def until_step(entry: Entry, step: int) -> None:
    path = entry.folder / "output" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was never reached")


def adapter(entry: Entry) -> str:
    return hashlib.sha256((entry.folder / "output/adapter/adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("step", [1, 4, 7])
def test_killed_at_any_step_the_trajectory_is_the_same(straight: Entry, entry: Entry, step: int) -> None:
    entry.write(checkpoint_steps=3)
    first = entry.start()
    until_step(entry, step)
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
    until_step(entry, 2)
    first.send_signal(signal.SIGTERM)
    text, _ = first.communicate(timeout=60)
    assert first.returncode == 143, text
    assert "stopped after step" in text
    entry.run()
    assert entry.result["training"]["resumed_from"] >= 2
    expected, found = straight.losses(), entry.losses()
    assert max(abs(found[at] - expected[at]) for at in expected) < 1e-4


def test_the_same_seed_gives_the_same_adapter(straight: Entry, entry: Entry) -> None:
    entry.write()
    entry.run()
    assert adapter(entry) == adapter(straight)


def test_the_saved_weights_are_an_adapter_of_every_linear_layer(straight: Entry) -> None:
    weights = load_file(straight.folder / "output/adapter/adapter_model.safetensors")
    layers = {name.rsplit(".lora_", 1)[0].rsplit(".", 1)[1] for name in weights}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(weight.abs().sum() > 0 for weight in weights.values())
    config = json.loads((straight.folder / "output/adapter/adapter_config.json").read_text())
    assert (config["r"], config["use_rslora"]) == (4, True)


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


def test_an_output_folder_that_cannot_be_written(entry: Entry) -> None:
    entry.write()
    (entry.folder / "file").write_text("")
    assert "cannot write to" in entry.run(code=2, output=entry.folder / "file" / "output")


def test_an_unknown_key_in_the_spec(entry: Entry) -> None:
    entry.write(lerning_rate=1.0)
    assert "train.lerning_rate" in entry.run(code=2)


def test_checkpoints_of_another_job_are_refused(straight: Entry, entry: Entry, tmp_path: Path) -> None:
    entry.write(epochs=1.0)
    text = entry.run("--checkpoints", str(straight.folder / "checkpoints"), code=2)
    assert "another job" in text
