"""Questions, instructions, plain completion, baselines alone and `try`: each through the command to its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from peft import PeftModel
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.chrf import CHRF
from torchmetrics.functional.text import squad
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from tests.end_to_end.conftest import Run, ftlaunch, run_job, write_job  # noqa: F401
from tests.tiny_model import MODEL, tasks

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"train": 60, "validation": 16, "test": 24}


def job(folder: Path, task: str, **sections: dict[str, Any]) -> Path:
    """A job on rows of a task; its metrics are generated answers, kept short."""
    columns = {"prompt": "instruction", "completion": "output", "input": "input"} if task == "instruction" else {}
    made = tasks.qa if task == "qa" else tasks.instructions
    for split, rows in tasks.splits(made, 0, SIZES).items():
        if task == "completion":
            rows = [{"id": row["id"], "text": row["output"]} for row in rows]
        tasks.write_jsonl(folder / f"{split}.jsonl", rows)
    short = {} if task == "completion" else {"max_new_tokens": 16}
    return write_job(
        folder, **{"task": {"type": task, **short}, "data": {"columns": columns}, "train": {"epochs": 1.0}} | sections
    )


def of_squad(name: str) -> Callable[[str, list[str]], float]:
    """By torchmetrics, which has it in percent."""

    def score(said: str, answers: list[str]) -> float:
        target = {"answers": {"answer_start": [0] * len(answers), "text": answers}, "id": "a"}
        return float(squad([{"prediction_text": said, "id": "a"}], [target])[name]) / 100

    return score


OTHERS: dict[str, Callable[[str, list[str]], float]] = {
    "f1": of_squad("f1"),
    "exact_match": of_squad("exact_match"),
    "rouge_l": lambda said, answers: max(
        RougeScorer(["rougeL"]).score(answer, said)["rougeL"].fmeasure for answer in answers
    ),
    "chrf": lambda said, answers: CHRF().sentence_score(said, answers).score / 100,
}
"""Metrics of one answer by others' code; the right answers are those of the job's own file."""

METRICS = {
    "qa": {"f1", "exact_match", "perplexity"},
    "instruction": {"rouge_l", "chrf", "perplexity"},
    "completion": {"perplexity"},
}


@pytest.mark.parametrize("task", METRICS)
def test_a_job_of_every_task_ends_with_its_metrics_and_a_verdict(ftlaunch: Run, tmp_path: Path, task: str) -> None:
    # The qa rows are not cut, so that anyone can ask them again.
    roomy = {"data": {"max_length": 256}} if task == "qa" else {}
    output, result = run_job(ftlaunch, job(tmp_path / task, task, **roomy))
    assert result["verdict"]["outcome"] in ("improved", "degraded", "inconclusive")
    assert set(result["evaluations"]) == {"zero_shot", "few_shot", "tuned"}
    asked = tasks.read_jsonl(output.parent / "test.jsonl")
    for name, entry in result["evaluations"].items():
        assert set(entry["metrics"]) == METRICS[task]
        rows = [json.loads(line) for line in (output / "predictions" / f"{name}.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == [line["id"] for line in asked]
        for metric in METRICS[task] - {"perplexity"}:
            found = [OTHERS[metric](row["prediction"], answers(line)) for row, line in zip(rows, asked, strict=True)]
            assert entry["metrics"][metric] == pytest.approx(fmean(found), abs=1e-6)
    before, after = (result["evaluations"][name]["metrics"]["perplexity"] for name in ("zero_shot", "tuned"))
    assert after < before
    if task == "qa":
        tuned = tasks.read_jsonl(output / "predictions" / "tuned.jsonl")
        assert [row["prediction"] for row in tuned] == written_again(output / "adapter", asked)


def answers(line: dict[str, Any]) -> list[str]:
    """The right ones, of a row of the file."""
    return line["answers"] if "answers" in line else [line["output"]]


def written_again(adapter: Path, asked: list[dict[str, Any]]) -> list[str]:
    """The tuned model's answers by plain transformers and peft, one by one, from the saved adapter alone."""
    tokenizer = AutoTokenizer.from_pretrained(str(adapter))
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained(str(MODEL), dtype=torch.float32, quantization_config=nf4).dequantize()
    model, texts = PeftModel.from_pretrained(base, str(adapter)).eval(), []
    for line in asked:
        text = f"Answer the question with words of the text.\n\n{line['context']}\n\nQuestion: {line['question']}"
        turn = [{"role": "user", "content": text}]
        told = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = model.generate(**told, max_new_tokens=16, do_sample=False, pad_token_id=2)[0]
        texts.append(tokenizer.decode(made[told["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return texts


@pytest.mark.parametrize(("name", "task"), [("qa", "qa"), ("instructions", "instruction")])
def test_the_examples_run(ftlaunch: Run, tmp_path: Path, name: str, task: str) -> None:
    """The repository's own job files as they stand, but for a smaller model and fewer rows."""
    smaller = {"model.id": MODEL, "data.max_rows": 24, "train.max_steps": 3, "task.max_new_tokens": 8}
    sets = [part for key, value in smaller.items() for part in ("--set", f"{key}={value}")]
    assert json.loads(ftlaunch("check", EXAMPLES / name, "--json", *sets).stdout)["ok"]
    done = ftlaunch("run", EXAMPLES / name, *sets, "--json", "--output", tmp_path / "out")
    assert json.loads(done.stdout)["state"] == "SUCCEEDED"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["task"]["type"] == task
    assert result["evaluations"]["tuned"]["n"] == 24
    assert result["training"]["steps"] == 3
    for file in ("LICENSE", "README.md"):
        assert "WordNet" in (EXAMPLES / name / file).read_text()


def test_baselines_alone_train_nothing(ftlaunch: Run, tmp_path: Path) -> None:
    folder = write_job(tasks.write(tmp_path / "alone", "colours", train=45, validation=15, test=30))
    done = ftlaunch("baseline", folder, "--json")
    found = json.loads(done.stdout)
    assert set(found["evaluations"]) == {"classical", "zero_shot", "few_shot"}
    assert not list(tmp_path.rglob("adapter_model.safetensors"))


def test_base_and_tuned_model_are_asked_side_by_side(ftlaunch: Run, tmp_path: Path) -> None:
    folder = write_job(tasks.write(tmp_path / "asked", "colours", train=90, validation=30, test=60))
    _, result = run_job(ftlaunch, folder)
    told = json.loads(ftlaunch("try", result["job"], "The dog sat by the door.", "--json").stdout)
    assert {"base", "tuned"} <= set(told)
    assert told["tuned"]["text"] in ("green", "red", "blue")
