"""Time: out of sample the stated ranges hold as often as they claim, and what was measured moves them."""

from __future__ import annotations

import csv
import math
import random

import pytest

from launcher.cost import speed
from scripts import throughput_table

RUNS = speed.published()


def inside(run: speed.Run, model: speed.Fit) -> bool:
    told = speed.predict(run.gpu, run.weights * run.tokens, model=model)
    return abs(math.log(run.flops / told.flops)) <= speed.Z * told.spread


def test_out_of_sample_nine_of_ten_lie_within_ranges_of_nine_in_ten():
    """Fitted on two thirds of the published runs, 200 times: the others lie inside as often as is claimed."""
    draw, hits, tried = random.Random(0), 0, 0
    for _ in range(200):
        shuffled = draw.sample(RUNS, len(RUNS))
        model = speed.fit(shuffled[: len(RUNS) * 2 // 3])
        rest = shuffled[len(RUNS) * 2 // 3 :]
        hits += sum(inside(run, model) for run in rest)
        tried += len(rest)
    assert 0.86 <= hits / tried <= 0.95  # 0.9, and the chance error of 27 points


def test_each_run_foretold_by_the_others():
    hits = sum(inside(run, speed.fit([*RUNS[:n], *RUNS[n + 1 :]])) for n, run in enumerate(RUNS))
    assert hits / len(RUNS) >= 0.88


def test_a_gpu_that_nobody_measured_has_a_range_that_holds_too():
    """All runs of one GPU, foretold by the other GPUs alone, which also set how wide the range is."""
    hits = 0
    for chip in {speed.chip(run.gpu) for run in RUNS}:
        model = speed.fit([run for run in RUNS if speed.chip(run.gpu) != chip])
        hits += sum(inside(run, model) for run in RUNS if speed.chip(run.gpu) == chip)
    assert hits / len(RUNS) >= 0.88


def test_the_table_is_what_its_script_makes():
    with throughput_table.PUBLISHED.open(newline="") as file:
        rows = [throughput_table.entry(row) for row in csv.DictReader(file) if not throughput_table.left_out(row)]
    with throughput_table.TABLE.open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert not [run for run in RUNS if run.gpu in ("A10G", "A6000")]


def test_own_runs_sharpen_the_range_and_move_it():
    work = 8e9 * 4096
    before = speed.predict("T4", work)
    mine = [speed.Run("T4", 8e9, 4096, True, 2 * before.flops / (6 * 8e9))] * 3
    after = speed.predict("T4", work, mine)
    assert after.spread < 0.6 * before.spread
    assert before.flops < after.flops <= 2 * before.flops
    assert "3 of your own" in after.basis
    assert speed.predict("L4", work, mine) == speed.predict("L4", work)


def test_own_runs_without_a_gpu():
    slow = speed.predict_cpu(4, [speed.Run("cpu", 1.35e8, 1024, False, 20, 2)] * 5)
    assert slow.flops < 0.5 * speed.predict_cpu(4).flops
    assert slow.spread < speed.predict_cpu(4).spread


def test_an_unknown_gpu_is_not_guessed():
    with pytest.raises(KeyError):
        speed.predict("Radeon", 1e13)
