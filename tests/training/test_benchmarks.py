"""The benchmark for GPUs does what it says, tried with small models on whatever is here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu
from launcher.cost.shapes import find


def test_the_trainers_run_beside_each_other_and_every_run_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "gpu.jsonl"
    which = ("--models", "meta-llama/Llama-3.1-8B", "--lengths", "short", "--checkpointing", "on", "--repeats", "1")
    gpu.main(["--tiny", *which, "--results", str(results), "--folder", str(tmp_path / "models")])
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [line["trainer"] for line in lines] == gpu.trainers()
    assert len(capsys.readouterr().out.splitlines()) == len(lines)
    ours, stock = lines[:2]
    assert (ours["batching"], ours["steps"], stock["steps"]) == ("packed", gpu.TINY_STEPS, gpu.TINY_STEPS)
    for line in lines:
        assert {"date", "device", "versions", "tiny", "mfu"} <= set(line)
        assert line["checkpointing"] == "on"
        assert line["peak_memory_gib"] > 0
        tokens = line["seconds"] * line["tokens_per_second"]
        assert tokens == pytest.approx(ours["seconds"] * ours["tokens_per_second"], rel=0.01)
        assert line["validation_loss"] == pytest.approx(ours["validation_loss"], rel=0.01)


def test_operations_of_a_token_are_those_of_the_convention() -> None:
    shape = find("meta-llama/Llama-3.1-8B")
    short, long = gpu.operations(shape, 0), gpu.operations(shape, 2048)
    assert short == pytest.approx(4 * 8.03e9, rel=1e-3)
    assert long - short == pytest.approx(6 * 32 * 4096 * 2048)
