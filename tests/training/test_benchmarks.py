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
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 * len(lines) + 1 + len(lines)  # each run, the case, its medians, one aim in speed, the ratios
    ours, stock = lines[:2]
    assert (ours["batching"], ours["steps"], stock["steps"]) == ("packed", gpu.TINY_STEPS, gpu.TINY_STEPS)
    for line in lines:
        assert {"date", "device", "versions", "tiny", "mfu"} <= set(line)
        assert line["checkpointing"] == "on"
        assert line["peak_memory_gib"] > 0
        tokens = line["seconds"] * line["tokens_per_second"]
        assert tokens == pytest.approx(ours["seconds"] * ours["tokens_per_second"], rel=0.01)
        assert line["validation_loss"] == pytest.approx(ours["validation_loss"], rel=0.01)


def test_a_run_that_fails_is_a_line() -> None:
    line = gpu.apart({"model": "none/such", "length": "short", "checkpointing": "on", "tiny": True, "trainer": "ours"})
    assert "none/such" in line["error"]
    assert "Traceback" in line["stderr"]


def test_the_summary_has_medians_ratios_and_aims() -> None:
    case = {"model": "meta-llama/Llama-3.1-8B", "length": "2048", "checkpointing": "on"}
    speeds = {"ours": [9000, 7000, 8100], "stock": [5000, 5400, 6000], "unsloth": [9000]}
    lines = [
        case | {"trainer": name, "tokens_per_second": speed, "peak_memory_gib": 7.5, "validation_loss": 2.0}
        for name, some in speeds.items()
        for speed in some
    ]
    lines.append(case | {"trainer": "stock", "error": "out of memory"})
    assert gpu.summary([*lines, case | {"length": "512", "trainer": "ours", "error": "out of memory"}]) == [
        "meta-llama/Llama-3.1-8B, 2048, checkpointing on, medians:",
        "  ours: 8100 tokens/s, 7.50 GiB, validation loss 2.0000, 3 of 3 runs",
        "  stock: 5400 tokens/s, 7.50 GiB, validation loss 2.0000, 3 of 4 runs",
        "  unsloth: 9000 tokens/s, 7.50 GiB, validation loss 2.0000, 1 of 1 runs",
        "  8100 of 8000 tokens/s: reached",
        "  7.50 GiB, below 8: reached",
        "  1.50 times as fast as stock, at least 1.5: reached",
        "  0.90 times as fast as unsloth, at least 1: missed",
        "meta-llama/Llama-3.1-8B, 512, checkpointing on, medians:",
        "  ours: out of memory",
    ]


def test_operations_of_a_token_are_those_of_the_convention() -> None:
    shape = find("meta-llama/Llama-3.1-8B")
    short, long = gpu.operations(shape, 0), gpu.operations(shape, 2048)
    assert short == pytest.approx(4 * 8.03e9, rel=1e-3)
    assert long - short == pytest.approx(6 * 32 * 4096 * 2048)
