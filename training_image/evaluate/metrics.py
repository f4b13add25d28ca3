"""The metrics, and how others join them.

Every metric is a function of sums over examples (hits, tokens, counts by label). So the interval of any metric costs
one matrix product over all resamples, and a paired difference is exact: the same rows of both evaluations are summed.

A package adds a metric by the entry point group ``ftlaunch.metrics``: name = ``module:Class``, the class having no
required arguments and the attributes of `Metric`; `PerExample` is the short way.
"""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from training_image.errors import InputError
from training_image.evaluate.outcomes import Outcome

Floats = NDArray[np.float64]
Needs = Literal["label", "text", "likelihood"]

GROUP = "ftlaunch.metrics"


@runtime_checkable
class Metric(Protocol):
    """A measure of answers."""

    name: str
    higher_is_better: bool
    unit_interval: bool
    """Whether the value lies in [0, 1]."""
    needs: Needs
    """label: one of a set of labels; text: a generated answer; likelihood: `Outcome.nll` and `Outcome.tokens`."""

    def statistics(self, outcomes: Sequence[Outcome], labels: Sequence[str]) -> Floats:
        """Numbers to add up, ``[examples, d]``."""

    def value(self, sums: Floats) -> Floats:
        """The metric of the sums over a set of examples, ``[..., d] -> [...]``."""


class PerExample(ABC):
    """A metric that is the mean of a score of each example. A subclass sets `name` and writes `score`."""

    name: str
    higher_is_better = True
    unit_interval = True
    needs: Needs = "text"

    @abstractmethod
    def score(self, outcome: Outcome) -> float:
        """The example's score; it stands in the prediction's line under the metric's name."""

    def statistics(self, outcomes: Sequence[Outcome], labels: Sequence[str]) -> Floats:
        """Score and one, ``[examples, 2]``."""
        return np.array([[self.score(outcome), 1.0] for outcome in outcomes], dtype=np.float64).reshape(-1, 2)

    def value(self, sums: Floats) -> Floats:
        """The mean."""
        return _ratio(sums[..., 0], sums[..., 1])


class Accuracy(PerExample):
    """Share of examples whose label is right."""

    name = "accuracy"
    needs: Needs = "label"

    def score(self, outcome: Outcome) -> float:
        """1 if right, else 0."""
        return float(outcome.prediction == outcome.reference)


class _ByLabel(ABC):
    """Unweighted mean over labels of a function of hits, predicted and true counts.

    As scikit-learn's ``average="macro", zero_division=0``: the mean runs over the labels that occur as reference or
    prediction, in the test split as in each resample; a label that occurs in neither has no value and is left out.
    """

    name: str
    higher_is_better = True
    unit_interval = True
    needs: Needs = "label"

    @abstractmethod
    def of_counts(self, hits: Floats, predicted: Floats, true: Floats) -> Floats:
        """One value a label, 0 where it is 0 / 0."""

    def statistics(self, outcomes: Sequence[Outcome], labels: Sequence[str]) -> Floats:
        """Hit, predicted and true by label, ``[examples, 3 * labels]``."""
        every = all_labels(outcomes, labels)
        order = {label: position for position, label in enumerate(every)}
        counts = np.zeros((len(outcomes), 3, len(every)))
        for row, outcome in enumerate(outcomes):
            counts[row, 1, order[outcome.prediction]] = 1
            counts[row, 2, order[outcome.reference]] = 1
            counts[row, 0, order[outcome.reference]] = float(outcome.prediction == outcome.reference)
        return counts.reshape(len(outcomes), -1)

    def value(self, sums: Floats) -> Floats:
        """The mean over the labels that occur."""
        hits, predicted, true = np.split(sums, 3, axis=-1)
        occurs = (predicted + true) > 0
        return _ratio(np.where(occurs, self.of_counts(hits, predicted, true), 0.0).sum(-1), occurs.sum(-1))


class Precision(_ByLabel):
    """Macro precision."""

    name = "precision"

    def of_counts(self, hits: Floats, predicted: Floats, true: Floats) -> Floats:
        """Hits over predicted."""
        return _ratio(hits, predicted)


class Recall(_ByLabel):
    """Macro recall."""

    name = "recall"

    def of_counts(self, hits: Floats, predicted: Floats, true: Floats) -> Floats:
        """Hits over true."""
        return _ratio(hits, true)


class MacroF1(_ByLabel):
    """Macro F1."""

    name = "macro_f1"

    def of_counts(self, hits: Floats, predicted: Floats, true: Floats) -> Floats:
        """Twice the hits over predicted plus true."""
        return _ratio(2 * hits, predicted + true)


def all_labels(outcomes: Sequence[Outcome], labels: Sequence[str]) -> list[str]:
    """The job's labels, then any other reference or prediction, sorted. References are the same in all evaluations."""
    seen = {outcome.reference for outcome in outcomes} | {outcome.prediction for outcome in outcomes}
    return [*labels, *sorted(seen - set(labels))]


def normalise(text: str) -> str:
    """Lower case, without punctuation, English articles and extra blanks, as SQuAD's own evaluation does."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


class ExactMatch(PerExample):
    """SQuAD exact match: the normalised answer equals one of the references.

    Ours, because the usual package (`evaluate`) downloads the metric's code when it runs. Formula of SQuAD 1.1
    (Rajpurkar et al. 2016, evaluate-v1.1.py); the best of the references counts.
    """

    name = "exact_match"

    def score(self, outcome: Outcome) -> float:
        """1 if equal to a reference, else 0."""
        given = normalise(outcome.prediction)
        return float(any(given == normalise(reference) for reference in outcome.references))


class SquadF1(PerExample):
    """SQuAD F1: harmonic mean of precision and recall over the words of the normalised answer; see `ExactMatch`.

    Where answer or reference has no words left, 1 if both have none, else 0 (evaluate-v2.0.py).
    """

    name = "f1"

    def score(self, outcome: Outcome) -> float:
        """The best F1 over the references, in [0, 1]."""
        return max(token_f1(outcome.prediction, reference) for reference in outcome.references)


def token_f1(prediction: str, reference: str) -> float:
    """F1 of two texts over their normalised words, as multisets."""
    given, wanted = normalise(prediction).split(), normalise(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))


class _Words:
    """Tokenizer for rouge-score: its own drops every letter beyond a-z; equal to it on plain English."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


class RougeL(PerExample):
    """ROUGE-L F-measure (rouge-score), the best of the references; no stemming; words of any alphabet."""

    name = "rouge_l"

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"], tokenizer=_Words())

    def score(self, outcome: Outcome) -> float:
        """In [0, 1]."""
        scores = (self._scorer.score(reference, outcome.prediction)["rougeL"] for reference in outcome.references)
        return float(max(score.fmeasure for score in scores))


class ChrF(PerExample):
    """Mean of the sentences' chrF2 (sacrebleu), divided by 100 so that it lies in [0, 1] like the others."""

    name = "chrf"

    @cached_property
    def _scorer(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF()

    def score(self, outcome: Outcome) -> float:
        """In [0, 1]."""
        return float(self._scorer.sentence_score(outcome.prediction, list(outcome.references)).score) / 100


class Perplexity:
    """exp of the mean loss over all answer tokens (end-of-turn included); lower is better."""

    name = "perplexity"
    higher_is_better = False
    unit_interval = False
    needs: Needs = "likelihood"

    def statistics(self, outcomes: Sequence[Outcome], labels: Sequence[str]) -> Floats:
        """Loss in nats and tokens, ``[examples, 2]``."""
        return np.array([[outcome.nll, outcome.tokens] for outcome in outcomes], dtype=np.float64).reshape(-1, 2)

    def value(self, sums: Floats) -> Floats:
        """At least 1."""
        # A model that is very wrong overflows to infinity, which is the right answer; no warning is due.
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(_ratio(sums[..., 0], sums[..., 1])))


BUILT_IN: tuple[type[Metric], ...] = (
    Accuracy, Precision, Recall, MacroF1, ExactMatch, SquadF1, RougeL, ChrF, Perplexity,
)  # fmt: skip


def available() -> dict[str, Metric]:
    """All metrics by name: ours, then those of installed packages. Raises InputError for a broken or doubled one."""
    metrics: dict[str, Metric] = {metric.name: metric for metric in (kind() for kind in BUILT_IN)}
    for entry in entry_points(group=GROUP):
        origin = f"entry point {entry.name} = {entry.value} of group {GROUP}"
        try:
            metric = entry.load()()
        except Exception as error:
            raise InputError(f"{origin} cannot be loaded: {error}", hint="Repair or remove that package.") from error
        if not isinstance(metric, Metric):
            raise InputError(
                f"{origin} is not a metric", hint="It needs the attributes of training_image.evaluate.metrics.Metric."
            )
        if metric.name in metrics:
            raise InputError(f"{origin}: there is a metric {metric.name} already", hint="Give it another name.")
        metrics[metric.name] = metric
    return metrics


def metrics_of(task: str, deciding: str) -> dict[str, Metric]:
    """The metrics that are computed for a task type, the deciding one first.

    Classification takes those on labels; qa those of SQuAD and the likelihood; instruction and chat the text metrics
    and the likelihood; completion the likelihood, and the text metrics only if one of them decides (then the answers
    are generated). Raises InputError where the deciding metric is unknown or does not fit the task.
    """
    every = available()
    if task == "classification":
        chosen = {name: metric for name, metric in every.items() if metric.needs == "label"}
    else:
        chosen = {name: metric for name, metric in every.items() if metric.needs != "label"}
    if deciding not in chosen:
        why = f"does not fit task.type {task}" if deciding in every else "is unknown"
        raise InputError(f"task.metric {deciding} {why}", hint=f"Choose one of: {', '.join(sorted(chosen))}.")
    squad = {"exact_match", "f1"}
    if task == "qa":
        chosen = {name: chosen[name] for name in chosen if name in squad | {deciding, "perplexity"}}
    elif task == "completion" and chosen[deciding].needs == "likelihood":
        chosen = {name: metric for name, metric in chosen.items() if metric.needs == "likelihood"}
    else:
        chosen = {name: chosen[name] for name in chosen if name not in squad or name == deciding}
    return {deciding: chosen[deciding]} | chosen


def evaluate(metric: Metric, outcomes: Sequence[Outcome], labels: Sequence[str]) -> float:
    """The metric over all the outcomes."""
    return float(metric.value(metric.statistics(outcomes, labels).sum(axis=0)))


def _ratio(above: Floats, below: Floats) -> Floats:
    """Above over below, 0 where below is 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)
