"""Care for labels: rows whose label is doubtful, and what predicts the label without the model having to read.

All of it is cheap and on the CPU (scikit-learn), out of fold where something is fitted, and only ever warns.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training_image.data.examples import Example
from training_image.data.normal import tokens

MOST_ROWS = 20_000
"""Rows that the classifiers here look at, spread evenly; more would cost minutes and say the same."""
MOST_CHARACTERS = 2_000
"""Of each text."""
FOLDS = 5
SUREST = 0.3
"""Share of the rows of which the classical baseline is surest; there it is nearly always right on clean labels."""
FLOOR, ALPHA = 0.05, 0.01
"""Labels are called suspect where, among the surest rows, significantly (one-sided binomial test at `ALPHA`) more than
`FLOOR` disagree. On halves of clean data with eight classes of which the baseline gets 7 in 10 right, 3 to 7 of 108 do;
with 10 % flipped labels 12 to 20."""
KNOWS = 0.4
"""Accuracy out of fold, scaled so that guessing is 0, below which the baseline does not know these labels and accuses
nobody: with 0.3 to 0.36 it was surely wrong about 8 to 16 of 60 rows of clean data."""
TOKEN_PHI = 0.8
"""Correlation (phi) of a token with a label from which it is called a shortcut; the best honest token on such data has
0.7."""
SKILL = 0.6
"""Balanced accuracy, scaled so that guessing is 0 and perfect is 1, from which length or a column is a shortcut."""
_LARGEST = 3.4e38
"""What scikit-learn's trees can take: they count in fp32."""
TOKEN_ROWS = 8
"""A token in fewer rows proves nothing."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label the classical baseline, trained on the other rows, does not believe."""

    example: Example
    suggested: str
    confidence: float
    """Probability of the suggested label, out of fold."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """Something that predicts the label alone."""

    kind: str
    """token, length or column."""
    name: str
    label: str | None
    """The label that a token stands for; None for the others."""
    score: float
    """phi for a token, scaled balanced accuracy out of fold for the others; 0 is chance and 1 perfect."""
    rows: int


def thinned(rows: Sequence[Example], most: int = MOST_ROWS) -> list[Example]:
    """At most ``most`` rows, spread evenly."""
    return list(rows) if len(rows) <= most else [rows[index * len(rows) // most] for index in range(most)]


def suspects(rows: Sequence[Example]) -> list[Suspect]:
    """Rows with doubtful labels, the surest first; none where disagreement is what honest mistakes would give.

    Confident disagreement out of fold (as in confident learning, Northcutt 2021), with a test in front of it: the
    mistakes of a classifier on clean labels fade where it is sure, flipped labels do not.
    """
    import numpy as np
    from scipy.stats import binomtest
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    rows = _in_every_fold(thinned(rows))
    labels = sorted({row.answer for row in rows})
    if len(labels) < 2:
        return []
    given = np.array([labels.index(row.answer) for row in rows])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    features = _features([row.text for row in rows])
    with threadpool_limits(1):  # small problems: threads that share cores with others cost ten times what they save
        chances = cross_val_predict(
            LogisticRegression(C=10.0, max_iter=300), features, given, cv=folds, method="predict_proba"
        )
    called, sure = chances.argmax(1), chances.max(1)
    chance = 1 / len(labels)
    if (float((called == given).mean()) - chance) / (1 - chance) < KNOWS:
        return []
    order = np.argsort(-sure, kind="stable")
    wrong = called[order] != given[order]
    surest = max(1, int(SUREST * len(rows)))
    mistakes = int(wrong[:surest].sum())
    # A classifier that is wrong about most of what it is surest of knows nothing about these labels.
    if binomtest(mistakes, surest, FLOOR, alternative="greater").pvalue >= ALPHA or mistakes / surest >= 0.4:
        return []
    rate = wrong.cumsum() / np.arange(1, len(rows) + 1)
    last = int(np.flatnonzero(rate <= 1.2 * mistakes / surest).max())
    return [
        Suspect(rows[index], labels[called[index]], float(sure[index]))
        for index in order[: last + 1][wrong[: last + 1]]
    ]


def _features(texts: Sequence[str]) -> Any:
    """TF-IDF of words and, for few rows, of the letters in them, which makes up for what few rows cannot show."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    made = [TfidfVectorizer(sublinear_tf=True, analyzer=tokens)]
    if len(texts) <= 5_000:
        made.append(TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5)))
    return make_union(*made).fit_transform([f"{text[:MOST_CHARACTERS]} . ." for text in texts])


def _in_every_fold(rows: Sequence[Example]) -> list[Example]:
    """Rows of labels that have one row for each fold at least."""
    counts = Counter(row.answer for row in rows)
    return [row for row in rows if counts[row.answer] >= FOLDS]


def shortcuts(rows: Sequence[Example], known: Sequence[str]) -> list[Shortcut]:
    """What predicts the label alone: one token, the text's length, or a column (none of ``known``: the task's own)."""
    rows = _in_every_fold(thinned(rows))
    labels = [row.answer for row in rows]
    if len(set(labels)) < 2:
        return []
    lengths = [[float(len(row.text)), float(len(row.text.split()))] for row in rows]
    found = _tokens(rows)
    length = _skill_of_numbers(lengths, labels)
    if length >= SKILL:
        found.append(Shortcut("length", "length of the text", None, length, len(rows)))
    columns = dict.fromkeys(column for row in rows for column in row.fields if column not in known)
    for column in columns:
        score = _skill_of_column([row.fields.get(column) for row in rows], labels)
        if score >= SKILL:
            found.append(Shortcut("column", column, None, score, len(rows)))
    return sorted(found, key=lambda shortcut: -shortcut.score)


def _tokens(rows: Sequence[Example]) -> list[Shortcut]:
    """The best token of each label, where it is good enough. Tokens are what blanks separate, as they stand."""
    total = len(rows)
    of_label = Counter(row.answer for row in rows)
    together: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for token in set(row.text.split()):
            together[token][row.answer] += 1
    best: dict[str, Shortcut] = {}
    for token, counts in together.items():
        number = sum(counts.values())
        if number < TOKEN_ROWS or number == total:
            continue
        for label, both in counts.items():
            own = of_label[label]
            spread = (own * (total - own) * number * (total - number)) ** 0.5
            phi = (both * total - own * number) / spread
            if phi >= TOKEN_PHI and (label not in best or phi > best[label].score):
                best[label] = Shortcut("token", token, label, phi, number)
    return list(best.values())


def _skill_of_column(values: Sequence[Any], labels: Sequence[str]) -> float:
    """How well a column alone predicts the label, out of fold. Texts of their own (nearly every row another one) are
    taken without their digits: ``spam-17`` gives itself away, ``row-17`` does not. A column with a number that is none,
    infinite or beyond fp32 (a digest, say) is taken for texts."""
    if all(isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST for value in values):
        return _skill_of_numbers([[float(value)] for value in values], labels)
    texts = [str(value) for value in values]
    if len(set(texts)) > len(texts) / 2:
        texts = [re.sub(r"\d+", "#", text) for text in texts]
    return 0.0 if len(set(texts)) < 2 else _skill_of_values(texts, labels)


def _skill_of_values(values: Sequence[str], labels: Sequence[str]) -> float:
    from sklearn.model_selection import StratifiedKFold

    guesses = [""] * len(values)
    for fitted, asked in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(values, labels):
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for index in fitted:
            seen[values[index]][labels[index]] += 1
        usual = Counter(labels[index] for index in fitted).most_common(1)[0][0]
        for index in asked:
            counts = seen.get(values[index])
            guesses[index] = counts.most_common(1)[0][0] if counts else usual
    return _skill(labels, guesses)


def _skill_of_numbers(values: Sequence[Sequence[float]], labels: Sequence[str]) -> float:
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(min_samples_leaf=3, max_leaf_nodes=4 * len(set(labels)), random_state=0)
    guesses = cross_val_predict(tree, values, labels, cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0))
    return _skill(labels, list(guesses))


def _skill(labels: Sequence[str], guesses: Sequence[str]) -> float:
    """Balanced accuracy, 0 for guessing and 1 for perfect."""
    right, total = Counter[str](), Counter(labels)
    for label, guess in zip(labels, guesses, strict=True):
        right[label] += label == guess
    recall = sum(right[label] / total[label] for label in total) / len(total)
    return (recall - 1 / len(total)) / (1 - 1 / len(total))
