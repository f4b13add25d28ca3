"""How much of a GPU's peak a training reaches, with its spread, from published runs and from the user's own.

Convention: a trained token costs 6 N floating-point operations, N the weights that it is multiplied with (the linear
layers, and the head where it is supervised; an embedding is looked up): forward 2 N, gradient of the activations 2 N
(frozen weights need none of their own), and 2 N to make the activations again where gradient checkpointing is on;
without it 4 N. What a pass reaches of the peak grows with its work W = N x tokens as W / (W + W0): small models and
short passes wait for kernels to start. Each GPU has a level of its own, drawn towards the mean of all GPUs the more the
fewer runs it has (a random-effects model, fitted by moments). The range of a GPU without runs is the one that would
have held nine of ten runs of the published GPUs, each foretold by the other GPUs alone.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from backends import hardware

TABLE = Path(__file__).with_name("throughput.csv")
Z = 1.645
"""Standard deviations on either side of the median that a stated range spans: 90 % of a normal distribution."""
CLAIM = 0.9
"""The share of cases that a range is stated for."""
HALF_WORKS = tuple(10.0 ** (exponent / 4) for exponent in range(46, 53))
"""W0 that are tried: 3e11 to 1e13."""
OWN_SPREAD = math.log(1.3)
"""Between runs of one GPU and one stack (published: 1.1 to 1.5)."""
CPU_FLOPS = 8.3e10
"""A second and core, fp32, AVX2: SmolLM2-135M at 205 tokens a second on two cores."""
CPU_SPREAD = math.log(2.0)


@dataclass(frozen=True, slots=True)
class Run:
    """A measured training."""

    gpu: str
    """Our name of the GPU; ``cpu`` for a machine without."""
    weights: float
    """That a token is multiplied with."""
    tokens: float
    """Of one forward pass."""
    checkpointing: bool
    tokens_per_second: float
    """Of one GPU."""
    cores: int = 0
    """Of a machine without a GPU."""

    @property
    def flops(self) -> float:
        """Operations a second that it reached."""
        return per_token(self.weights, self.checkpointing) * self.tokens_per_second


@dataclass(frozen=True, slots=True)
class Speed:
    """What one device will reach, as a log-normal distribution."""

    flops: float
    """Median, operations a second."""
    spread: float
    """Standard deviation of the logarithm."""
    basis: str
    """What it rests on, in words."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The random-effects model of published runs."""

    half_work: float
    mean: float
    """Of the GPUs' levels, as logarithms of the share of the peak."""
    between: float
    """Variance of the levels."""
    within: float
    """Variance of one GPU's runs about its level."""
    levels: dict[str, tuple[float, int]]
    """Mean and number of the runs of each GPU."""
    foreign: float = 0.0
    """Variance of a run on a GPU without runs of its own."""

    def runs(self, gpu: str) -> int:
        """Number of runs on a GPU of that make."""
        return self.levels.get(chip(gpu), (0.0, 0))[1]

    def level(self, gpu: str) -> tuple[float, float]:
        """Expected level of a GPU, and its variance."""
        found, count = self.levels.get(chip(gpu), (0.0, 0))
        if not count:
            return self.mean, max(self.between, self.foreign - self.within)
        weight = count / self.within + 1 / self.between
        return (found * count / self.within + self.mean / self.between) / weight, 1 / weight


def chip(gpu: str) -> str:
    """The make of a GPU: how much memory it has does not change its speed."""
    return gpu.partition("-")[0]


def per_token(weights: float, checkpointing: bool) -> float:
    """Operations of a trained token, attention's not among them."""
    return (6 if checkpointing else 4) * weights


@cache
def published() -> tuple[Run, ...]:
    """The bundled runs."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Run(
                row["gpu"],
                float(row["weights"]),
                float(row["tokens"]),
                row["checkpointing"] == "yes",
                float(row["tokens_per_second"]),
            )
            for row in csv.DictReader(file)
        )


def fit(runs: Sequence[Run]) -> Fit:
    """Fit the model to runs of two GPUs and more."""
    return replace(_best(runs), foreign=_foreign(runs))


@cache
def published_fit() -> Fit:
    """The model of the bundled runs."""
    return fit(published())


def predict(gpu: str, work: float, own: Sequence[Run] = (), model: Fit | None = None) -> Speed:
    """What a GPU will reach on passes of so much work (weights x tokens). Raises KeyError for an unknown GPU."""
    known = hardware.gpu(gpu)
    if known is None:
        raise KeyError(gpu)
    model = model or published_fit()
    level, variance = model.level(known.name)
    mine = [run for run in own if chip(run.gpu) == chip(known.name)]
    count, name = model.runs(known.name), chip(known.name)
    basis = f"{count} published runs on {name}" if count else f"published runs on other GPUs, none on {name}"
    spread = model.within + variance
    if mine:
        seen = fmean(_level(run, model.half_work) for run in mine)
        weight = 1 / (model.within + variance) + len(mine) / OWN_SPREAD**2
        level = (level / (model.within + variance) + seen * len(mine) / OWN_SPREAD**2) / weight
        spread = OWN_SPREAD**2 + 1 / weight
        basis = f"{len(mine)} of your own runs on {name}, and {basis}"
    flops = known.tflops * 1e12 * math.exp(level) * _share(work, model.half_work)
    return Speed(flops, math.sqrt(spread), basis)


def predict_cpu(cores: int, own: Sequence[Run] = ()) -> Speed:
    """What a machine without a GPU will reach."""
    mine = [math.log(run.flops / max(1, run.cores)) for run in own if run.gpu == "cpu"]
    level, variance = math.log(CPU_FLOPS), CPU_SPREAD**2
    if not mine:
        return Speed(CPU_FLOPS * cores, CPU_SPREAD, "one measured run on two other cores")
    weight = 1 / variance + len(mine) / OWN_SPREAD**2
    level = (level / variance + sum(mine) / OWN_SPREAD**2) / weight
    return Speed(math.exp(level) * cores, math.sqrt(OWN_SPREAD**2 + 1 / weight), f"{len(mine)} of your own runs here")


def _best(runs: Sequence[Run]) -> Fit:
    """W0 is that of the trial values which leaves the least spread within and between GPUs."""
    return min((_fit(runs, trial) for trial in HALF_WORKS), key=lambda found: found.within + found.between)


def _foreign(runs: Sequence[Run]) -> float:
    """How far runs lie from what the other GPUs foretell, as the variance whose range holds the claimed share of them
    (a split-conformal quantile, (n + 1) in the place of n)."""
    errors = []
    for make in {chip(run.gpu) for run in runs}:
        model = _best([run for run in runs if chip(run.gpu) != make])
        errors += [abs(_level(run, model.half_work) - model.mean) for run in runs if chip(run.gpu) == make]
    place = min(len(errors), math.ceil(CLAIM * (len(errors) + 1)))
    return (sorted(errors)[place - 1] / Z) ** 2


def _fit(runs: Sequence[Run], half_work: float) -> Fit:
    groups: dict[str, list[float]] = {}
    for run in runs:
        groups.setdefault(chip(run.gpu), []).append(_level(run, half_work))
    means = {gpu: fmean(levels) for gpu, levels in groups.items()}
    squares = sum((level - means[gpu]) ** 2 for gpu, levels in groups.items() for level in levels)
    within = max(0.01, squares / max(1, len(runs) - len(groups)))
    mean = fmean(means.values())
    noise = within * fmean(1 / len(levels) for levels in groups.values())
    between = sum((level - mean) ** 2 for level in means.values()) / max(1, len(groups) - 1) - noise
    counted = {gpu: (means[gpu], len(levels)) for gpu, levels in groups.items()}
    return Fit(half_work, mean, max(0.02, between), within, counted)


def _level(run: Run, half_work: float) -> float:
    """A run's share of the peak, as if its passes were endless; a logarithm."""
    known = hardware.gpu(run.gpu)
    assert known is not None  # both tables are ours
    return math.log(run.flops / (known.tflops * 1e12) / _share(run.weights * run.tokens, half_work))


def _share(work: float, half_work: float) -> float:
    return work / (work + half_work)
