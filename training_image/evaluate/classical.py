"""The classical baseline: would something far cheaper do?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def classical_pipeline(seed: int = 0) -> Pipeline:
    """TF-IDF over words (one and two) and over letters within words (two to five), then logistic regression.

    scikit-learn's own settings otherwise; deterministic; thousands of rows in seconds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    features = make_union(
        # One-letter words count too, as do words of any alphabet.
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+"),  # noqa: S106
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    return make_pipeline(features, LogisticRegression(C=10.0, max_iter=1000, random_state=seed))


def classify(
    texts: Sequence[str], answers: Sequence[str], unseen: Sequence[str], *, seed: int = 0
) -> list[dict[str, float]]:
    """Train on texts and answers; give each unseen text's probability by label. Needs two labels or more."""
    pipeline = classical_pipeline(seed)
    pipeline.fit(list(texts), list(answers))
    labels = [str(label) for label in pipeline.classes_]
    return [dict(zip(labels, map(float, row), strict=True)) for row in pipeline.predict_proba(list(unseen))]
