"""Evaluation: baselines and tuned model on one frozen test split, with intervals and a verdict."""

from __future__ import annotations

from training_image.evaluate.evaluator import Evaluator, label_likelihoods
from training_image.evaluate.forgetting import general_loss
from training_image.evaluate.guards import guards
from training_image.evaluate.outcomes import Evaluation, Outcome
from training_image.evaluate.slices import slices
from training_image.evaluate.verdict import Verdict, not_needed, verdict

__all__ = [
    "Evaluation",
    "Evaluator",
    "Outcome",
    "Verdict",
    "general_loss",
    "guards",
    "label_likelihoods",
    "not_needed",
    "slices",
    "verdict",
]
