"""An encoder made by a script of ours, tuned through the command to a verdict against the classical baseline."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import tasks, tiny_encoder, words

Tuned = tuple[Path, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.make(tmp_path_factory.mktemp("encoder") / "tiny-bert")


def sentences(count: int) -> list[dict[str, str]]:
    """Different sentences, each about one of four things of its kind."""
    rng, made = random.Random(0), {}
    while len(made) < count:
        sort, label = list(tasks.COLOURS.items())[len(made) % 3]
        text = tasks.sentence(rng.choice(words.KNOWN[sort][:4]), rng)
        made.setdefault(text, {"id": str(len(made)), "text": text, "label": label})
    return list(made.values())


@pytest.fixture(scope="module")
def tuned(ftlaunch: Run, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """The model's folder, the results' folder, result.json."""
    folder = tmp_path_factory.mktemp("encoded")
    rows = sentences(285)
    for split, some in (("train", rows[:180]), ("validation", rows[180:225]), ("test", rows[225:])):
        tasks.write_jsonl(folder / f"{split}.jsonl", some)
    job = write_job(folder, model={"id": str(encoder)}, train={"epochs": 30.0, "learning_rate": 2e-3, "patience": 0})
    output, result = run_job(ftlaunch, job)
    return encoder, output, result


def test_an_encoder_is_judged_against_the_classical_baseline(tuned: Tuned) -> None:
    _, _, result = tuned
    assert set(result["evaluations"]) == {"classical", "tuned"}
    assert result["verdict"]["baseline"] == "classical"
    assert "no zero-shot or few-shot" in result["verdict"]["text"]
    assert result["forgetting"] is None
    assert result["evaluations"]["tuned"]["metrics"]["macro_f1"] > 0.7  # a third by chance
    assert result["training"]["supervised_tokens"] == 30 * 180
    assert (result["method"], result["platform"]["batching"]) == ("lora", "padded")


def test_its_predictions_are_those_of_plain_transformers_and_peft(tuned: Tuned) -> None:
    encoder, output, result = tuned
    lines = [json.loads(line) for line in (output / "predictions" / "tuned.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (output.parent / "test.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(str(output / "adapter"))
    base = AutoModelForSequenceClassification.from_pretrained(str(encoder), num_labels=3, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(output / "adapter")).eval()
    labels = result["evaluations"]["tuned"]["labels"]
    for line, row in zip(lines, rows, strict=True):
        with torch.no_grad():
            scores = model(**tokenizer(row["text"], return_tensors="pt")).logits.log_softmax(-1)[0].tolist()
        assert scores == pytest.approx([line["log_likelihoods"][label] for label in labels], abs=1e-3)


def test_an_encoder_is_checked_asked_merged_and_measured_alone(tuned: Tuned, ftlaunch: Run, tmp_path: Path) -> None:
    _, output, result = tuned
    report = json.loads(ftlaunch("check", output.parent, "--json").stdout)
    assert report["ok"]
    assert report["counts"]["train"]["supervised_tokens"] == 180
    told = json.loads(ftlaunch("try", result["job"], "The dog sat by the door.", "--json").stdout)
    assert told["base"] is None
    assert sum(told["tuned"]["probabilities"].values()) == pytest.approx(1.0)
    ftlaunch("try", result["job"], "The dog sat by the door.")
    made = json.loads(ftlaunch("export", result["job"], "--merged", "--output", tmp_path / "m", "--json").stdout)
    assert made["evaluation"]["same_answers"] >= 58
    alone = json.loads(ftlaunch("baseline", output.parent, "--json").stdout)
    assert set(alone["evaluations"]) == {"classical"}


def test_an_encoder_cannot_be_asked_to_write(encoder: Path, ftlaunch: Run, tmp_path: Path) -> None:
    for split, rows in tasks.splits(tasks.qa, 0, {"train": 30, "validation": 10, "test": 10}).items():
        tasks.write_jsonl(tmp_path / f"{split}.jsonl", rows)
    folder = write_job(tmp_path, model={"id": str(encoder)}, task={"type": "qa"})
    done = ftlaunch("run", folder, "--output", tmp_path / "out", code=2)
    assert "is an encoder" in done.stderr
