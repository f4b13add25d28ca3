"""Jobs of chosen numbers, and estimates of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from backends import prices
from backends.interface import Offer
from launcher.cost import compare, counts, duration, memory, places, shapes, speed
from training_image.spec import Spec


@dataclass
class Case:
    """A job by its numbers alone."""

    model: str = "meta-llama/Llama-3.1-8B"
    rows: int = 300
    length: int = 300
    epochs: float = 3.0
    place: str = "sagemaker"
    machine: str = "ml.g5.2xlarge"
    evaluated: int = 60
    """Rows of the test split, and of the validation split."""
    train: dict = field(default_factory=dict)
    own: tuple[speed.Run, ...] = ()

    @property
    def spec(self) -> Spec:
        return Spec.model_validate(
            {
                "schema": 1,
                "job": "case",
                "model": {"id": self.model},
                "data": {"train": "train.jsonl", "max_length": max(1024, self.length)},
                "task": {"type": "instruction", "max_new_tokens": 32},
                "train": {"epochs": self.epochs, **self.train},
            }
        )

    @property
    def counts(self) -> counts.Counts:
        def split(rows: int) -> counts.Split:
            return counts.Split(rows, rows * self.length, rows * self.length // 4, self.length)

        splits = {"train": split(self.rows), "validation": split(self.evaluated), "test": split(self.evaluated)}
        return counts.Counts(splits, 0, 0, 0, True, "told")

    def work(self, gpus: int) -> duration.Work:
        return duration.work(self.spec, self.counts, "gpu", processes=gpus)

    def row(self) -> compare.Row:
        """The row of its machine, as the estimator makes it."""
        estimator = object.__new__(compare.Estimator)
        estimator.file = _NoFolder()
        estimator.own, estimator.spec = self.own, self.spec
        estimator.shape, estimator.counts = shapes.find(self.model), self.counts
        return estimator.row(self.offer())

    def offer(self) -> Offer:
        return next(each for each in prices.offers(self.place) if each.machine == self.machine)

    def unevaluated(self, tokens: float) -> duration.Duration:
        """Of a run that only trains, on so many tokens."""
        shape = shapes.find(self.model)
        work = duration.work(self.spec, self.counts, "gpu", baselines=False)
        setup = memory.Setup(tokens=self.length, supervised=self.length, checkpointing=True, shared=False)
        from dataclasses import replace

        work = replace(work, train_tokens=tokens, tokens=self.length, span=self.length / 2)
        rate = speed.predict(self.offer().gpu, shape.parameters * self.length)
        return duration.duration(shape, work, setup, rate, places.place(self.place), "gpu")


class _NoFolder:
    model_folder = None


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-hub"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"
