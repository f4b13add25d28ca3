"""Fair label scores: one temperature and one bias a label, fitted on the validation split, for every model alike.

A language model prefers some labels before it has read anything (Zhao et al. 2021); uncalibrated, the baselines look
far worse than they are and any tuning looks like a gain. Here p = softmax(score / temperature + bias), fitted by
maximum likelihood with a ridge that pulls towards no change; its strength is cross-validated, so that a small
validation split does not overfit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Ridges tried; a bias of one nat costs half the strength."""
FOLDS = 5
FEWEST = 10
"""Validation rows below which nothing is fitted."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = softmax(score / temperature + bias)."""

    temperature: float
    bias: tuple[float, ...]
    """One a label, in nats, mean zero."""
    strength: float | None
    """Ridge; None where nothing was fitted."""
    rows: int
    """Validation rows that it was fitted on."""

    def probabilities(self, scores: Floats) -> Floats:
        """Label probabilities of label log-likelihoods, ``[rows, labels]``."""
        return np.asarray(softmax(scores / self.temperature + np.array(self.bias), axis=-1))

    def as_json(self, labels: Sequence[str]) -> dict[str, Any]:
        """The entry ``calibration`` of an evaluation."""
        return {
            "temperature": self.temperature,
            "bias": dict(zip(labels, self.bias, strict=True)),
            "strength": self.strength,
            "rows": self.rows,
        }


def fit(scores: Floats, answers: Ints) -> Calibration:
    """Fit on validation scores ``[rows, labels]`` and the right labels' positions ``[rows]``.

    With fewer than `FEWEST` rows nothing is changed: temperature 1, no bias.
    """
    rows, labels = scores.shape
    if rows < FEWEST:
        return Calibration(1.0, (0.0,) * labels, None, rows)
    strength = min(STRENGTHS, key=lambda strength: _held_out_loss(scores, answers, strength))
    inverse, bias = _fit(scores, answers, strength)
    return Calibration(1 / inverse, tuple(bias.tolist()), strength, rows)


def _held_out_loss(scores: Floats, answers: Ints, strength: float) -> float:
    """Sum of the losses of rows left out in turn; folds are dealt out within each label, so that all have all."""
    fold = np.empty(len(answers), dtype=np.int64)
    fold[np.argsort(answers, kind="stable")] = np.arange(len(answers)) % FOLDS
    total = 0.0
    for out in (fold == part for part in range(FOLDS)):
        inverse, bias = _fit(scores[~out], answers[~out], strength)
        total -= log_softmax(scores[out] * inverse + bias, axis=-1)[np.arange(out.sum()), answers[out]].sum()
    return total


def _fit(scores: Floats, answers: Ints, strength: float) -> tuple[float, Floats]:
    """Inverse temperature and bias."""
    centred = scores - scores.mean(axis=-1, keepdims=True)  # same softmax, better numbers
    right = np.eye(scores.shape[1])[answers]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        log_inverse, bias = parameters[0], parameters[1:]
        scaled = centred * np.exp(log_inverse)
        logs = log_softmax(scaled + bias, axis=-1)
        error = np.exp(logs) - right
        value = -(logs * right).sum() + strength / 2 * (parameters**2).sum()
        slope = np.concatenate([[(error * scaled).sum()], error.sum(axis=0)])
        return float(value), slope + strength * parameters

    found = minimize(loss, np.zeros(1 + scores.shape[1]), jac=True, method="L-BFGS-B")
    return float(np.exp(found.x[0])), np.asarray(found.x[1:] - found.x[1:].mean())
