"""Calibration puts label scores right that lean to one side, and leaves them alone where too little is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_image.evaluate.calibrate import FEWEST, fit


def leaning(rows: int, lean: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of three labels that tell the right one, but for a constant lean towards the first."""
    rng = np.random.default_rng(seed)
    right = np.arange(rows) % 3
    return np.eye(3)[right] * 2 + rng.normal(0, 0.3, (rows, 3)) + np.array([lean, 0, 0]), right


@settings(max_examples=20)
@given(st.floats(3, 30), st.integers(0, 1000))
def test_a_lean_towards_one_label_is_taken_off(lean: float, seed: int) -> None:
    scores, right = leaning(60, lean, seed)
    unseen, truth = leaning(90, lean, seed + 1)
    assert (unseen.argmax(-1) == truth).mean() < 0.5
    chances = fit(scores, right).probabilities(unseen)
    assert (chances.argmax(-1) == truth).mean() > 0.9
    assert chances.sum(-1) == pytest.approx(1)


def test_a_constant_shift_of_a_label_changes_no_answer() -> None:
    scores, right = leaning(60, 0.0, 1)
    shift = np.array([0.0, 5.0, -2.0])
    one, two = fit(scores, right).probabilities(scores), fit(scores + shift, right).probabilities(scores + shift)
    assert (one.argmax(-1) == two.argmax(-1)).mean() > 0.97


def test_noise_is_not_fitted() -> None:
    rng = np.random.default_rng(0)
    scores, right = rng.normal(size=(40, 4)), rng.integers(0, 4, 40)
    assert np.abs(fit(scores, right).bias).max() < 0.5


def test_with_too_few_rows_nothing_is_changed() -> None:
    scores, right = leaning(FEWEST - 1, 10.0, 0)
    found = fit(scores, right)
    assert (found.temperature, found.bias, found.strength) == (1.0, (0.0, 0.0, 0.0), None)
