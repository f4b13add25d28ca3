"""Two processes, the base whole in each or in parts over both: the trajectory of one, and a job to its verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.rows import config_of
from launcher.cost import memory, shapes
from tests.training.conftest import Entry
from tests.training.invariance import CLASSES, DRIFT, LARGEST, REFERENCE, Case, differences
from tests.training.test_model import make_samples, make_spec
from tests.training.two_processes import CASES, MORE, WHOLE, untied
from training_image import model as models
from training_image import sharding
from training_image.evaluate.generate import generate

TWO = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
CLOSE = {"rel": 1e-3, "abs": 1e-5}


@pytest.fixture(scope="module")
def case() -> Case:
    spec = make_spec(batch_size=8, epochs=4.0)
    setting = models.choose(spec, Path())
    return Case(spec, setting, models.load_base(setting), make_samples(16), pad=2, rate=3e-3, chunk=10)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes says."""
    folder = tmp_path_factory.mktemp("sharded")
    untied(folder)
    command = [sys.executable, "-m", *TWO, "tests.training.two_processes", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def alike(found: Any, reference: Any) -> None:
    largest, drift = differences(found, reference)
    assert largest <= LARGEST
    assert drift <= DRIFT


@pytest.mark.parametrize(("base", "name"), [*(("", name) for name in CASES), *(("whole, ", name) for name in WHOLE)])
def test_the_trajectory_is_that_of_one_process(
    base: str, name: str, case: Case, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    found, again = (each["trajectories"][base + name] for each in told)
    assert found == again  # both processes hold the same adapter
    alike(found, case.trajectory(tmp_path, **MORE.get(name, REFERENCE)))


@pytest.mark.parametrize(("name", "method"), [("untied", "qlora"), ("untied, not quantised", "lora")])
def test_embeddings_and_head_of_their_own_are_sharded_too(
    name: str, method: str, case: Case, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    spec = make_spec(batch_size=8, epochs=4.0, method=method)
    setting = replace(models.choose(spec, Path()), source=str(untied(tmp_path)))
    one = replace(case, spec=spec, setting=setting, base=models.load_base(setting))
    alike(told[0]["trajectories"][name], one.trajectory(tmp_path, **CLASSES["logits in chunks"]))
    assert told[0]["own untied"][0] == pytest.approx(told[0]["whole untied"] / 2, rel=0.01)
    shape = shapes.from_config(json.loads((tmp_path / "untied" / "config.json").read_text()), "untied")
    setup = memory.Setup(tokens=1, supervised=1, weight_bytes=4, compute_bytes=4, embedding_bytes=4, shards=2)
    assert memory.peak(shape, setup).weights == pytest.approx(told[0]["own untied"][0], rel=0.01)


def test_each_process_keeps_half_of_the_layers(case: Case, told: list[dict[str, Any]]) -> None:
    embeddings = case.base.get_input_embeddings().weight.nbytes  # tied to the head, and whole in each
    for each in told:
        base, layers = each["own"]
        assert layers == pytest.approx((each["whole"] - embeddings) / 2, rel=0.01)
        assert base == pytest.approx(embeddings + layers, rel=0.01)


def test_a_process_that_has_its_answers_waits_for_the_other(case: Case, told: list[dict[str, Any]]) -> None:
    prompts = [sample.input_ids[:9] for sample in make_samples(3)]
    assert told[0]["answers"] == generate(case.base, prompts, {2}, 8)
    assert told[1]["answers"] == [[], [], []]


def test_a_process_without_rows_runs_as_many_micro_batches(told: list[dict[str, Any]]) -> None:
    assert [each["micro-batches"] for each in told] == [1, 1]


def test_the_base_is_sharded_only_where_a_card_is_too_small(told: list[dict[str, Any]]) -> None:
    for each in told:
        assert each["choices"]["room"] == each["choices"]["encoder"] == [False]
        assert each["choices"]["one process has no room"] == [True]
        assert each["choices"]["one process, no room"] == [False]
        assert each["choices"]["dora"] == ["train.variant: dora needs the whole base on one card"]
        assert each["choices"]["modules_to_save"] == ["train.modules_to_save needs the whole base on one card"]


def test_an_overflow_in_one_process_is_skipped_by_both(told: list[dict[str, Any]]) -> None:
    first, second = (torch.tensor(each["overflow"]) for each in told)
    assert bool(first.isfinite().all())
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-32B", "google/gemma-2-27b"]
)
@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_what_a_card_would_need_is_the_estimate_s_peak_or_a_little_more(name: str, method: str) -> None:
    shape = shapes.find(name)
    setting = models.Setting(torch.device("cuda"), torch.bfloat16, method, "sdpa", "", None, config_of(shape))
    for longest in (512, 2048):
        weight = memory.NF4 if method == "qlora" else 2.0
        setup = memory.Setup(tokens=longest, supervised=longest, weight_bytes=weight, checkpointing=True)
        needed = sharding.needed_bytes(setting, make_spec(rank=16).train, longest)
        assert 1.0 <= needed / memory.peak(shape, setup).allocated <= 1.15


def test_a_job_begun_by_one_process_is_ended_by_two_that_share_the_base(straight: Entry, entry: Entry) -> None:
    """Killed on a large card, gone on with on two small ones, to the same curves and the same verdict."""
    entry.write(checkpoint_steps=1)
    first = entry.start()
    entry.until_step(4)
    first.kill()
    first.communicate()
    text = entry.run(launcher=TWO, module="tests.training.small_card")
    result = entry.result
    parallel = result["platform"]["parallel"]
    assert (parallel["processes"], parallel["base"]) == (2, "sharded")
    assert "one process has 0.00" in parallel["why"]
    assert "each keeps a part of the base" in text
    assert result["training"]["resumed_from"] >= 1
    assert straight.losses() == pytest.approx(entry.losses(), **CLOSE)
    assert result["verdict"]["outcome"] == straight.result["verdict"]["outcome"]
    one, two = (predictions(job) for job in (straight, entry))
    assert one == pytest.approx(two, rel=1e-3, abs=1e-4)


def predictions(job: Entry) -> list[float]:
    """Every label's score on every test row, of base and tuned model."""
    files = [job.folder / "output" / "predictions" / f"{name}.jsonl" for name in ("zero_shot", "few_shot", "tuned")]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [score for line in lines for score in line["log_likelihoods"].values()]
