"""The micro-batch that fits is found before the training, and the same rows are trained in the same steps with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training_image import model as models
from training_image.batches import Layout, micro_batches, part_of_process
from training_image.data.examples import IGNORED, Sample
from training_image.errors import OutOfMemory
from training_image.memory import Probe, Way, heaviest, ways
from training_image.train import Trainer, plan_steps

from .loop import hooks
from .test_batches import LAYOUTS as ON_A_CPU
from .test_batches import samples
from .test_model import make_samples, make_spec

LAYOUTS: tuple[Layout, ...] = (*ON_A_CPU, "ragged")


@pytest.fixture(autouse=True)
def tried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass is tried, as on an accelerator, though this machine has plenty of memory."""
    if "foretold" not in request.node.name:
        monkeypatch.setattr(Probe, "_plenty", lambda *asked: False)


def test_a_pass_that_fits_beyond_doubt_is_foretold_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_with_limit(tmp_path, 40)  # the longest row alone, and no more
    trainer.probe()
    assert "without checkpointing: the longest rows will take about" in capsys.readouterr().out
    (told,) = trainer.probed
    assert (told["micro_batch_tokens"], told["foretold"]) == (1024, True)


def trainer_with_limit(folder: Path, limit: int, **train: Any) -> Trainer:
    """A trainer on a device whose memory is full above so many tokens, four times as many with checkpointing."""
    spec = make_spec(batch_size=8, **train)
    setting = models.choose(spec, folder)
    model = models.add_adapter(models.load_base(setting), spec)
    trainer = Trainer(model, make_samples(16), setting, spec.train, 3e-3, pad=2)

    def full(module: torch.nn.Module, given: Any, named: dict[str, Any]) -> None:
        if named["input_ids"].numel() > (4 * limit if trainer.checkpointing else limit):
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.get_base_model().get_decoder().register_forward_pre_hook(full, with_kwargs=True)
    return trainer


def losses(trainer: Trainer, folder: Path) -> list[float]:
    lines: list[dict[str, float]] = []
    wiring = hooks(folder, lines)
    trainer.fit(plan_steps(trainer.settings, 16, None), wiring, trainer.restore(wiring.checkpoints))
    return [line["train/loss"] for line in lines]


def test_the_largest_micro_batch_that_fits_is_taken_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roomy, tight = (trainer_with_limit(tmp_path, limit) for limit in (10_000, 70))
    for trainer in (roomy, tight):
        trainer.probe()
    assert roomy.resolved()["micro_batch_tokens"] == 1024
    assert (tight.resolved()["micro_batch_tokens"], tight.resolved()["checkpointing"]) == (64, "off")
    assert [tried["bytes"] is not None for tried in tight.probed] == [False, False, False, False, True]
    assert "micro-batches of 64 tokens without checkpointing: the longest rows took" in capsys.readouterr().out
    assert losses(tight, tmp_path / "tight") == pytest.approx(losses(roomy, tmp_path / "roomy"), rel=1e-5)


def test_checkpointing_comes_last_and_only_if_it_may(tmp_path: Path) -> None:
    trainer = trainer_with_limit(tmp_path, 20)
    trainer.probe()
    assert (trainer.resolved()["checkpointing"], trainer.resolved()["micro_batch_tokens"]) == ("on", 64)
    with pytest.raises(OutOfMemory, match=f"the longest row, {trainer.longest} tokens") as error:
        trainer_with_limit(tmp_path, 20, checkpointing="off").probe()
    assert "train.checkpointing: auto" in error.value.hint


def test_memory_that_runs_out_later_is_met_within_the_step(tmp_path: Path) -> None:
    whole = losses(trainer_with_limit(tmp_path, 10_000), tmp_path / "whole")
    tight = trainer_with_limit(tmp_path, 70)
    assert losses(tight, tmp_path / "tight") == pytest.approx(whole, rel=1e-5)
    assert tight.resolved()["micro_batch_tokens"] == 64


def test_ways_go_from_the_fastest_to_the_most_frugal() -> None:
    assert ways(8192, 1000, "auto", "cuda") == [
        *(Way(size, False) for size in (8192, 4096, 2048)),
        *(Way(size, True) for size in (8192, 4096, 2048, 1024, 512)),
    ]
    assert ways(1024, 300, "auto", "cpu") == [Way(size, on) for on in (False, True) for size in (1024, 512, 256)]
    assert ways(1024, 2000, "off", "cpu") == [Way(1024, False)]
    assert ways(100, 10, "on", "cpu") == [Way(100, True), Way(64, True)]


@given(st.lists(st.integers(3, 60), min_size=1, max_size=40), st.integers(1, 9), st.integers(16, 300))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_step_has_a_micro_batch_much_larger_than_the_one_tried(
    layout: Layout, lengths: list[int], rows: int, tokens: int
) -> None:
    tried = heaviest(samples(lengths), rows, tokens, layout, 2)
    assert tried.input_ids.numel() <= max(tokens, max(lengths))
    assert tried.input_ids.numel() >= max(lengths)
    if rows >= tokens // min(lengths) and len(lengths) > rows and layout != "padded":  # the limit can be filled
        assert tried.input_ids.numel() > tokens / 3


@given(st.lists(st.integers(3, 200), min_size=1, max_size=40), st.integers(1, 9), st.integers(16, 900), st.randoms())
def test_no_step_has_a_larger_padded_micro_batch_than_the_one_tried(
    lengths: list[int], rows: int, tokens: int, random: Random
) -> None:
    drawn = samples(lengths)
    tried = heaviest(drawn, rows, tokens, "padded", 2).input_ids.numel()
    step = random.sample(drawn, min(rows, len(drawn)))
    assert max(batch.input_ids.numel() for batch in micro_batches(step, tokens, "padded", 2)) <= tried


@pytest.mark.parametrize("layout", ["shared", "ragged"])
@pytest.mark.parametrize("other", [0, 1])
def test_what_is_tried_is_as_large_as_a_step_behind_a_shared_beginning(layout: Layout, other: int) -> None:
    rows = samples([27] * 200, alike=270)
    more = samples([9] * other)  # a short row that begins in another way, which few steps have
    for batch_size, tokens in ((8, 1024), (32, 1024), (64, 8192)):
        step = max(each.input_ids.numel() for each in micro_batches(rows[:batch_size], tokens, layout, 2))
        tried = heaviest([*rows, *more], batch_size, tokens, layout, 2).input_ids.numel()
        assert tried >= step if other else tried == step


@given(st.lists(st.integers(3, 60), min_size=1, max_size=40), st.integers(1, 8))
def test_processes_take_every_row_once_and_about_as_many_tokens(lengths: list[int], size: int) -> None:
    rows = samples(lengths)
    parts = [part_of_process(rows, rank, size) for rank in range(size)]
    assert sorted(row.id for part in parts for row in part) == sorted(row.id for row in rows)
    sums = [sum(len(row.input_ids) for row in part) for part in parts]
    assert max(sums) - min(sums) <= max(lengths)


LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from tests.training.loop import hooks
from tests.training.test_memory import long_rows
from tests.training.test_model import make_spec
from training_image import model as models
from training_image.memory import Probe, _pages
from training_image.train import Trainer, plan_steps

torch.set_num_threads(1)
Probe._plenty = lambda *asked: False
when, spare, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
spec = make_spec(batch_size=8, max_steps=1, micro_batch_tokens=4096)
spec = spec.model_copy(update={"model": spec.model.model_copy(update={"attention": "eager"})})
setting = models.choose(spec, folder)
trainer = Trainer(models.add_adapter(models.load_base(setting), spec), long_rows(), setting, spec.train, 3e-3, 2)
limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (_pages()[0] + spare, resource.RLIM_INFINITY))
if when == "before":
    limit()
trainer.probe()
if when == "after":
    limit()
lines = []
wiring = hooks(folder, lines)
trainer.fit(plan_steps(spec.train, 8, None), wiring, trainer.restore(wiring.checkpoints))
print(json.dumps({"loss": lines[0]["train/loss"], "probed": trainer.probed, **trainer.resolved()}))
"""


def long_rows() -> list[Sample]:
    """Eight rows of 480 tokens: together 3,840, whose attention scores take 59 MB a head under eager attention."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for index in range(8):
        ids = torch.randint(50, 500, (480,), generator=generator).tolist()
        made.append(Sample(str(index), ids, [IGNORED] * 470 + ids[-10:]))
    return made


def limited(when: str, spare: int, folder: Path) -> tuple[dict[str, Any], str]:
    """One step in a process whose address space may grow by ``spare`` bytes, from before or after the probe on."""
    command = [sys.executable, "-c", LIMITED, when, str(spare), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told, done.stdout


def test_a_real_limit_is_met_before_and_within_the_training(tmp_path: Path) -> None:
    whole, _ = limited("never", 0, tmp_path / "whole")
    assert whole["micro_batch_tokens"] == 4096
    spare = whole["probed"][0]["bytes"] // 3
    before, said = limited("before", spare, tmp_path / "before")
    assert before["micro_batch_tokens"] < 4096
    assert before["probed"][0]["bytes"] is None
    assert "do not fit" in said
    after, said = limited("after", spare, tmp_path / "after")
    assert after["probed"][-1]["micro_batch_tokens"] == 4096
    assert "out of memory: going on with micro-batches of" in said
    assert [before["loss"], after["loss"]] == pytest.approx([whole["loss"]] * 2, rel=1e-5)
