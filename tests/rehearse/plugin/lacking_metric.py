"""A metric that the image lacks, installed as anyone's plug-in is; beside the backends, which load no framework."""

from __future__ import annotations

from training_image.evaluate.metrics import PerExample
from training_image.evaluate.outcomes import Outcome


class Loudness(PerExample):
    name = "loudness"
    needs = "text"

    def score(self, outcome: Outcome) -> float:
        return sum(letter.isupper() for letter in outcome.prediction) / max(1, len(outcome.prediction))
