"""Evaluation: baselines and tuned model on one frozen test split, with intervals and a verdict."""

from __future__ import annotations

from training_image.evaluate.outcomes import Evaluation, Outcome
from training_image.evaluate.verdict import Verdict

__all__ = ["Evaluation", "Outcome", "Verdict"]
