"""Whether training and test rows are of one kind: can a classifier tell them apart, do the labels stand alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training_image.data.examples import Example
from training_image.data.labels import FOLDS, MOST_CHARACTERS, thinned
from training_image.data.normal import tokens

AUC = 0.65
"""The interval's lower end from which rows are called of another kind."""
MOST_ROWS = 3_000
"""Of each split."""
DISTANCE, ALPHA = 0.1, 0.001
"""Labels stand differently where their shares are so far apart (total variation) and chance (chi-squared) would give
it less often than `ALPHA`."""


@dataclass(frozen=True, slots=True)
class TextDrift:
    """How well train and test rows are told apart by their words, out of fold."""

    auc: float
    ci95: tuple[float, float]

    @property
    def drifted(self) -> bool:
        """Whether they are told apart far better than by chance."""
        return self.ci95[0] > AUC


@dataclass(frozen=True, slots=True)
class LabelDrift:
    """How far the shares of the labels are apart."""

    distance: float
    """Total variation, 0 to 1."""
    p: float

    @property
    def drifted(self) -> bool:
        """Whether they differ by more than chance and enough to matter."""
        return self.distance > DISTANCE and self.p < ALPHA


def text_drift(train: Sequence[Example], test: Sequence[Example]) -> TextDrift | None:
    """AUC of a classifier (TF-IDF, logistic regression) for train against test, with its 95 % interval
    (Hanley and McNeil 1982); None for fewer than 20 rows on a side."""
    if min(len(train), len(test)) < 20:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    one, other = thinned(train, MOST_ROWS), thinned(test, MOST_ROWS)
    sides = [0] * len(one) + [1] * len(other)
    texts = [row.text[:MOST_CHARACTERS] for row in (*one, *other)]
    features = TfidfVectorizer(sublinear_tf=True, analyzer=tokens).fit_transform(texts)
    with threadpool_limits(1):
        chances = cross_val_predict(
            LogisticRegression(class_weight="balanced", max_iter=300),
            features,
            sides,
            cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0),
            method="predict_proba",
        )
    auc = float(roc_auc_score(sides, chances[:, 1]))
    return TextDrift(auc, _interval(auc, len(other), len(one)))


def _interval(auc: float, positive: int, negative: int) -> tuple[float, float]:
    first, second = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = (auc * (1 - auc) + (positive - 1) * (first - auc * auc) + (negative - 1) * (second - auc * auc)) / (
        positive * negative
    )
    half = 1.96 * max(spread, 0.0) ** 0.5
    return max(0.0, auc - half), min(1.0, auc + half)


def label_drift(train: Sequence[Example], test: Sequence[Example]) -> LabelDrift | None:
    """How the labels of test stand against those of train; None without labels to compare."""
    from scipy.stats import chi2_contingency

    one, other = Counter(row.answer for row in train), Counter(row.answer for row in test)
    labels = sorted(set(one) | set(other))
    if len(labels) < 2 or not one or not other:
        return None
    distance = sum(abs(one[label] / one.total() - other[label] / other.total()) for label in labels) / 2
    table = [[one[label] for label in labels], [other[label] for label in labels]]
    return LabelDrift(distance, float(chi2_contingency(table).pvalue))
