"""One job from the command to the verdict, checked against what anyone can compute from the files it leaves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from tests.end_to_end.conftest import Run, run_job, write_job
from tests.tiny_model import MODEL, tasks
from training_image.spec import Train

EVALUATIONS = ("classical", "zero_shot", "few_shot", "tuned")


@pytest.fixture(scope="module")
def finished(ftlaunch: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tasks.write(tmp_path_factory.mktemp("colours"), "colours", train=180, validation=60, test=150)
    roomy = {"max_length": 256}  # the few-shot examples have to fit
    return run_job(ftlaunch, write_job(folder, data=roomy, evaluate={"slices": ["source"], "forgetting": True}))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_tuned_model_improves_on_what_nobody_can_guess(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    verdict = result["verdict"]
    assert verdict["outcome"] == "improved"
    assert verdict["ci95"][0] > 0
    assert "harmed" not in verdict  # no group of `source` is
    assert result["guards"] == []
    assert verdict["baseline"] in ("zero_shot", "few_shot")
    tuned = result["evaluations"]["tuned"]["metrics"]["macro_f1"]
    assert verdict["difference"] == pytest.approx(
        tuned - result["evaluations"][verdict["baseline"]]["metrics"]["macro_f1"], abs=1e-9
    )


def test_the_tree_is_whole(finished: tuple[Path, dict[str, Any]]) -> None:
    output, result = finished
    for name in EVALUATIONS:
        assert len(lines(output / "predictions" / f"{name}.jsonl")) == result["evaluations"][name]["n"] == 150
    for name in ("metrics.jsonl", "README.md", "job.yaml", "adapter/adapter_config.json"):
        assert (output / name).stat().st_size > 0
    assert (output / "adapter" / "adapter_model.safetensors").exists()
    assert list((output / "tensorboard").rglob("events.*"))
    assert result["model"]["id"] == str(MODEL)  # not where it was staged
    assert json.loads((output / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(MODEL)
    manifest = json.loads((output / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        content = (output / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry["sha256"], entry["bytes"]), name
    named = set(manifest["files"]) | {"manifest.json", "job.yaml"}
    assert {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()} == named


@pytest.mark.parametrize("name", EVALUATIONS)
def test_the_metrics_are_those_of_the_predictions(finished: tuple[Path, dict[str, Any]], name: str) -> None:
    output, result = finished
    rows = lines(output / "predictions" / f"{name}.jsonl")
    true, said = [row["reference"] for row in rows], [row["prediction"] for row in rows]
    entry = result["evaluations"][name]
    macro = {"average": "macro", "zero_division": 0.0}
    assert entry["metrics"]["accuracy"] == pytest.approx(accuracy_score(true, said))
    assert entry["metrics"]["macro_f1"] == pytest.approx(f1_score(true, said, **macro))
    assert entry["metrics"]["precision"] == pytest.approx(precision_score(true, said, **macro))
    assert entry["metrics"]["recall"] == pytest.approx(recall_score(true, said, **macro))
    assert entry["confusion"] == confusion_matrix(true, said, labels=entry["labels"]).tolist()
    low, high = entry["ci95"]["macro_f1"]
    assert low <= entry["metrics"]["macro_f1"] <= high


def test_every_group_has_its_metric_in_every_evaluation(finished: tuple[Path, dict[str, Any]]) -> None:
    output, result = finished
    sources = {row["id"]: row["source"] for row in lines(output.parent / "test.jsonl")}
    assert set(result["slices"]["source"]) == set(sources.values())
    for value, entry in result["slices"]["source"].items():
        for name in EVALUATIONS:
            rows = [row for row in lines(output / "predictions" / f"{name}.jsonl") if sources[row["id"]] == value]
            true, said = [row["reference"] for row in rows], [row["prediction"] for row in rows]
            assert entry["n"] == len(rows)
            f1 = f1_score(true, said, average="macro", zero_division=0.0)
            assert entry[name]["metrics"]["macro_f1"] == pytest.approx(f1)
            low, high = entry[name]["ci95"]["macro_f1"]
            assert 0 <= low <= f1 <= high <= 1


def test_the_result_has_what_the_design_names(finished: tuple[Path, dict[str, Any]]) -> None:
    output, result = finished
    assert result["schema"] == 1
    assert set(result) >= {
        *("schema", "job", "task", "model", "method", "seed", "settings", "platform", "data", "evaluations", "verdict"),
        *("slices", "guards", "forgetting", "training", "timings"),
    }
    assert {"type": "classification", "metric": "macro_f1"}.items() <= result["task"].items()
    assert {"name": "local", "attention": "sdpa", "batching": "packed"}.items() <= result["platform"].items()
    assert set(Train.model_fields) <= set(result["settings"])
    assert result["data"]["train"] == {"rows": 180, "used": 180, "dropped": {}}
    assert set(result["verdict"]) >= {"outcome", "baseline", "metric", "difference", "ci95", "text"}
    assert result["forgetting"]["unit"] == "nats/token"
    assert 0 < result["forgetting"]["before"] != result["forgetting"]["after"] > 0
    training = result["training"]
    assert training["steps"] == 46
    assert training["supervised_tokens"] < training["tokens"]
    assert {"import", "start", "load", "evaluate", "probe", "train", "validate", "save"} == set(result["timings"])
    assert training["seconds"] <= result["timings"]["train"]
    (tried,) = training["probe"]
    assert (tried["micro_batch_tokens"], tried["checkpointing"]) == (1024, False)
    assert tried["bytes"] >= 0 < tried["tokens"]
    assert result["evaluations"]["few_shot"]["k"] == 3
    for name in ("zero_shot", "few_shot", "tuned"):  # calibrated alike
        assert result["evaluations"][name]["calibration"]["rows"] == 60
    environment = json.loads((output / "manifest.json").read_text())["environment"]
    assert set(environment) >= {"packages", "gpu", "cuda", "image_digest", "seed"}
    assert {"torch", "transformers", "peft", "bitsandbytes"} <= set(environment["packages"])


def test_the_model_card_tells_verdict_data_settings_and_versions(finished: tuple[Path, dict[str, Any]]) -> None:
    output, result = finished
    card = (output / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("---", 1)
    told = yaml.safe_load(head)
    assert {"library_name": "peft", "pipeline_tag": "text-classification"}.items() <= told.items()
    assert "base_model" not in told  # a folder of this machine is no model of the hub
    assert f"- base model: {MODEL}" in body
    assert result["verdict"]["text"] in body
    assert "| train | 180 | 180 | none |" in body
    for name, entry in result["evaluations"].items():
        assert f"| {name} | 150 | {entry['metrics']['macro_f1']:.3f} |" in body
    for name, value in result["settings"].items():
        assert f"- {name}: {value}" in body
    assert f"- peft {version('peft')}" in body
    assert f"{result['forgetting']['before']:.2f}" in body


def test_all_evaluations_answer_the_same_rows(finished: tuple[Path, dict[str, Any]]) -> None:
    output, _ = finished
    asked = [
        [(row["id"], row["reference"]) for row in lines(output / "predictions" / f"{name}.jsonl")]
        for name in EVALUATIONS
    ]
    assert all(rows == asked[0] for rows in asked)


def test_the_curves_have_the_standard_names(finished: tuple[Path, dict[str, Any]]) -> None:
    output, result = finished
    rows = lines(output / "metrics.jsonl")
    assert all({"step", "epoch", "time"} <= set(row) for row in rows)
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == sorted(set(steps))
    assert steps[-1] == result["training"]["steps"]
    names = {name for row in rows for name in row}
    assert {"train/loss", "train/grad_norm", "train/learning_rate", "validation/loss", "validation/macro_f1"} <= names


def test_a_repeated_command_runs_a_new_attempt_and_reuse_shows_the_old(
    ftlaunch: Run, finished: tuple[Path, dict[str, Any]]
) -> None:
    output, result = finished
    done = ftlaunch("run", output.parent, "--reuse", "--json")
    shown = json.loads(done.stdout)
    assert shown["job"] == result["job"]
    assert shown["state"] == "SUCCEEDED"
    planned = json.loads(ftlaunch("run", output.parent, "--dry-run", "--json").stdout)
    assert planned["job"] != result["job"]


def test_an_independent_script_finds_the_same(finished: tuple[Path, dict[str, Any]]) -> None:
    """Baselines and tuned model by plain transformers and peft, each label scored alone, from the files of the job."""
    output, result = finished
    script = Path(__file__).with_name("independent_few_shot.py")
    assert len([line for line in script.read_text().splitlines() if line.strip()]) <= 40
    done = subprocess.run(
        [sys.executable, script, MODEL, output.parent, output], capture_output=True, text=True, check=True, timeout=400
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["name"] for line in found] == ["zero_shot", "few_shot", "tuned"]
    for line in found:
        told = result["evaluations"][line["name"]]["metrics"]["macro_f1"]
        assert line["macro_f1"] == pytest.approx(told, abs=0.02), line["name"]
    said = [row["prediction"] for row in lines(output / "predictions" / "tuned.jsonl")]
    assert found[-1]["chosen"] == said
