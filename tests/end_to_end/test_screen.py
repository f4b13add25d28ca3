"""A screening of real base models in one job, and a learning curve of real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from launcher.models_table import known_models
from tests.end_to_end.conftest import Run, ftlaunch, write_job  # noqa: F401
from tests.tiny_model import MODEL, tasks, tiny_encoder


def bits(model: str, texts: list[str]) -> float:
    """Bits a character by plain transformers, text by text."""
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).float()
    total, characters = 0.0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        with torch.no_grad():
            logits = loaded(torch.tensor([[first, *ids]])).logits[0, :-1]
        total -= float(torch.log_softmax(logits, -1)[range(len(ids)), ids].sum())
        characters += len(text)
    return total / math.log(2) / characters


def test_models_are_measured_and_ranked_on_the_validation_rows(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "sorts", "sorts", train=60, validation=24, test=20)
    encoder = tiny_encoder.make(tmp_path / "encoder")
    job = write_job(folder, evaluate={"enough": 0.3})
    models = f"{MODEL},{encoder},nobody/nothing"
    done = ftlaunch("screen", job, "--models", models, "--output", tmp_path / "out", "--json")
    told = json.loads(done.stdout)
    by_name = {model["name"]: model for model in told["models"]}
    assert list(by_name)[-1] == "nobody/nothing"  # what could not be loaded comes last, and stops nothing
    assert by_name["nobody/nothing"]["error"]
    decoder, probed = by_name[str(MODEL)], by_name[str(encoder)]
    assert (decoder["kind"], set(decoder["evaluations"])) == ("decoder", {"zero_shot", "few_shot"})
    assert (probed["kind"], set(probed["evaluations"])) == ("encoder", {"probe"})
    assert decoder["value"] == max(each["metrics"]["macro_f1"] for each in decoder["evaluations"].values())
    assert [model["value"] for model in told["models"][:2]] == sorted((decoder["value"], probed["value"]), reverse=True)
    assert decoder["evaluations"]["zero_shot"]["n"] == 24
    texts = [row["text"] for row in tasks.read_jsonl(folder / "validation.jsonl")]
    assert decoder["bits_per_character"] == pytest.approx(bits(str(MODEL), texts), rel=0.02)
    here, cheapest = decoder["price"]["here"], decoder["price"]["cheapest"]
    assert (here["backend"], here["usd"]["high"]) == ("local", 0.0)
    assert 0 < here["hours"]["low"] < here["hours"]["high"]
    assert cheapest["backend"] in ("sagemaker", "vertex", "azureml", "colab")
    assert 0 < cheapest["usd"]["low"] < cheapest["usd"]["expected"] < cheapest["usd"]["high"]
    assert probed["price"]["cheapest"]["usd"]["expected"] > 0
    assert by_name["nobody/nothing"]["price"] == {"here": None, "cheapest": None}
    if told["models"][0] is decoder:
        assert "Tuning may not be worth it" in told["text"]
    data = json.loads((Path(told["output"]) / "result.json").read_text())["data"]
    assert data["test"]["used"] == 0
    again = ftlaunch("screen", job, "--models", models, "--output", tmp_path / "out")
    assert "measured before" in again.stderr
    assert "--models nobody/nothing" in again.stderr
    assert "no bill, " in again.stdout
    assert f"${cheapest['usd']['expected']:.2f}" in again.stdout


def test_a_screening_that_measured_nothing_has_failed_and_is_tried_anew(ftlaunch: Run, tmp_path: Path) -> None:
    job = write_job(tasks.write(tmp_path / "sorts", "sorts", train=60, validation=24, test=20))
    screen = ("screen", job, "--domain", "legal", "--output")  # the hub is out of reach here
    told = json.loads(ftlaunch(*screen, tmp_path / "one", "--json", code=1).stdout)
    assert {model["name"] for model in told["models"]} == {model.id for model in known_models("legal")}
    done = ftlaunch(*screen, tmp_path / "two", code=1)
    assert "No model could be measured" in done.stdout
    assert "measured before" not in done.stderr


def test_a_learning_curve_says_whether_more_data_would_help(ftlaunch: Run, tmp_path: Path) -> None:
    folder = tasks.write(tmp_path / "colours", "colours", train=120, validation=24, test=60)
    job = write_job(folder)
    done = ftlaunch("curve", job, "--output", tmp_path / "page.html", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert [(point["percent"], point["rows"]) for point in told["points"]] == [(25, 30), (50, 60), (100, 120)]
    assert told["last"]["difference"] == pytest.approx(told["points"][2]["value"] - told["points"][1]["value"])
    assert told["text"].startswith("More data") == (told["more_helps"] is not None)
    assert "<svg" in (tmp_path / "page.html").read_text()
    rows = [set(trained(tmp_path / "runs" / point["job"])) for point in told["points"]]
    assert rows[0] < rows[1] < rows[2]


def trained(folder: Path) -> list[str]:
    import yaml

    job = yaml.safe_load((folder / "job.yaml").read_text())
    return [row["text"] for row in tasks.read_jsonl(Path(job["data"]["train"]))]
