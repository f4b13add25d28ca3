"""The evaluator: baselines and tuned model on one frozen test split, with one template and one decoder."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training_image.data.encoder import EncoderRenderer
from training_image.data.examples import Example
from training_image.encoder import label_scores
from training_image.errors import InputError
from training_image.evaluate.bootstrap import interval
from training_image.evaluate.calibrate import FEWEST, Calibration, fit
from training_image.evaluate.classical import classify
from training_image.evaluate.generate import generate
from training_image.evaluate.metrics import Metric, PerExample, evaluate, metrics_of
from training_image.evaluate.outcomes import Evaluation, Outcome, group_numbers
from training_image.evaluate.score import log_likelihoods
from training_image.evaluate.shots import choose_shots, number_of_shots
from training_image.model import padding

if TYPE_CHECKING:
    from training_image.data import AnyRenderer, Splits
    from training_image.spec import Spec

GENERATED_VALIDATION_ROWS = 200
"""Early stop looks at the first so many generated answers; the loss is over all rows."""

TIMED_ROWS = 64
"""Training rows that stand for the others where it is only asked how long an evaluation takes."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a model gave for some rows."""

    outcomes: list[Outcome]
    extra: list[dict[str, Any]]
    """More for each prediction's line."""
    calibration: Calibration | None = None


class Evaluator:
    """Evaluates models on the test split of a job.

    All evaluations see the same test examples in the same order. Nothing but `zero_shot`, `few_shot`, `tuned` and
    `classical` touches a test row. Models are transformers or peft models on any device.
    """

    def __init__(self, spec: Spec, splits: Splits, renderer: AnyRenderer) -> None:
        """Raises InputError for an unknown metric, shots that do not fit the labels, an empty test split, or a column
        of ``evaluate.slices`` that no test row has."""
        self.spec, self.splits, self.renderer = spec, splits, renderer
        self.labels: list[str] = list(splits.labels)
        self.metrics: dict[str, Metric] = metrics_of(spec.task.type, spec.task.metric_name)
        self._classifies = spec.task.type == "classification"
        self._generates = any(metric.needs == "text" for metric in self.metrics.values())
        self._wanted_shots = number_of_shots(spec.evaluate.shots, self.labels)
        self._rendered: dict[int, list[int]] = {}
        self._groups = group_numbers(splits.test, spec.data.group)
        self._inputs = {example.id: example.text for example in splits.test}
        if not splits.test and spec.goal == "tune":
            raise InputError("there is no test row", hint="Give data.test, or a share of the rows in data.split.test.")
        for column in spec.evaluate.slices:
            if not any(column in example.fields for example in splits.test):
                known = ", ".join(sorted(splits.test[0].fields))
                raise InputError(f"evaluate.slices: no test row has a column {column}", hint=f"There are: {known}.")

    def zero_shot(self, model: Any) -> Evaluation:
        """The base model with the instruction alone."""
        return self._evaluate("zero_shot", model)

    def few_shot(self, model: Any) -> Evaluation:
        """The base model with examples from the training rows in the prompt."""
        return self._evaluate("few_shot", model, self.shots())

    def tuned(self, model: Any) -> Evaluation:
        """The tuned model, prompted as in zero-shot."""
        return self._evaluate("tuned", model)

    def classical(self) -> Evaluation:
        """TF-IDF and logistic regression, trained on the training rows. For classification only (ValueError)."""
        if not self._classifies:
            raise ValueError("the classical baseline is for classification")
        start = time.perf_counter()
        train, test = self.splits.train, self.splits.test
        found = classify(
            [example.text for example in train],
            [example.answer for example in train],
            [example.text for example in test],
            seed=self.spec.train.seed,
        )
        answers = _Answers(
            [
                self._outcome(example, max(row, key=lambda label: row[label]))
                for example, row in zip(test, found, strict=True)
            ],
            [
                {"prompt_sha256": _sha256(example.text), "probabilities": row}
                for example, row in zip(test, found, strict=True)
            ],
        )
        return self._finish("classical", answers, start)

    def validation_metric(self, model: Any) -> tuple[str, float, dict[str, float]]:
        """The deciding metric on the validation split, its name first, and ``validation/...`` for the curves.

        Label scores are taken as they are (calibrating on the rows that are measured would flatter them). The loss is
        in nats a supervised token. Without validation rows: nan and nothing.
        """
        name, rows = self.spec.task.metric_name, self.splits.validation
        if not rows:
            return name, math.nan, {}
        outcomes = self._answers(model, rows).outcomes
        curves = {
            "validation/loss": sum(outcome.nll for outcome in outcomes) / sum(outcome.tokens for outcome in outcomes)
        }
        for metric in self.metrics.values():
            some = outcomes[:GENERATED_VALIDATION_ROWS] if metric.needs == "text" else outcomes
            curves[f"validation/{metric.name}"] = evaluate(metric, some, self.labels)
        return name, curves[f"validation/{name}"], curves

    def seconds_of(self, model: Any) -> float:
        """About how long an evaluation of the test split takes, of a model that cannot be evaluated yet.

        Timed on the validation rows, and where there are none on some training rows.
        """
        start, rows = time.perf_counter(), self.splits.validation or self.splits.train[:TIMED_ROWS]
        self._answers(model, rows)
        asked = len(self.splits.validation) + len(self.splits.test)  # a test row is asked beside those that calibrate
        return (time.perf_counter() - start) * asked / max(1, len(rows))

    def shots(self) -> list[Example]:
        """The few-shot examples: seeded, as many of each label, and together with nearly all prompts (95 %) and the
        longest answer within ``data.max_length`` tokens; fewer or none where they do not fit."""
        asked = [*self.splits.validation, *self.splits.test]
        lengths = sorted(len(self._prompt(example)) for example in asked)
        typical = lengths[int(0.95 * (len(lengths) - 1))]
        if self._classifies:
            answer = max(len(self.renderer.answer(label)) for label in self.labels)
        else:
            answer = self.spec.task.max_new_tokens if self._generates else 0
        return choose_shots(
            self.splits.train,
            self.labels,
            self._wanted_shots,
            seed=self.spec.train.seed,
            size=lambda example: len(self.renderer.sample(example).input_ids),
            room=self.spec.data.max_length - typical - answer,
        )

    def _evaluate(self, name: str, model: Any, shots: Sequence[Example] | None = None) -> Evaluation:
        start = time.perf_counter()
        used = shots or ()
        if self._classifies:
            answers = self._classify(model, self.splits.test, used, self.splits.validation)
        else:
            answers = self._write(model, self.splits.test, used)
        notes = []
        if shots is not None and len(shots) != self._wanted_shots:
            notes.append(f"{len(shots)} of {self._wanted_shots} examples fit into data.max_length or are there")
        return self._finish(name, answers, start, None if shots is None else [shot.id for shot in shots], notes)

    def _answers(self, model: Any, rows: Sequence[Example]) -> _Answers:
        """The instruction alone, not calibrated."""
        return self._classify(model, rows, (), None) if self._classifies else self._write(model, rows, ())

    def _prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        """Rendered once for all evaluations and validations, where no examples go before it."""
        if shots:
            return self.renderer.prompt(example, shots)
        if id(example) not in self._rendered:  # the splits keep their examples
            self._rendered[id(example)] = self.renderer.prompt(example)
        return self._rendered[id(example)]

    def _classify(
        self, model: Any, rows: Sequence[Example], shots: Sequence[Example], validation: Sequence[Example] | None
    ) -> _Answers:
        """The likeliest label of each row; calibrated on the validation rows unless None."""
        fitted_on = validation or ()
        answers = [self.renderer.answer(label) for label in self.labels]
        prompts = [self._prompt(example, shots) for example in (*fitted_on, *rows)]
        scores = np.array(label_likelihoods(model, self.renderer, prompts, self.labels))
        place = {label: position for position, label in enumerate(self.labels)}
        right = np.array([place[example.answer] for example in fitted_on], dtype=np.int64)
        calibration = fit(scores[: len(fitted_on)], right)
        scores, prompts = scores[len(fitted_on) :], prompts[len(fitted_on) :]
        chances = calibration.probabilities(scores)
        outcomes, extra = [], []
        for example, prompt, score, chance in zip(rows, prompts, scores, chances, strict=True):
            true = place.get(example.answer)
            outcomes.append(
                self._outcome(
                    example,
                    self.labels[int(chance.argmax())],
                    nll=math.nan if true is None else -float(score[true]),
                    tokens=0 if true is None else len(answers[true]),
                )
            )
            extra.append(
                {
                    "prompt_sha256": _sha256(prompt),
                    "log_likelihoods": dict(zip(self.labels, score.tolist(), strict=True)),
                    "probabilities": dict(zip(self.labels, chance.tolist(), strict=True)),
                }
            )
        return _Answers(outcomes, extra, None if validation is None else calibration)

    def _write(self, model: Any, rows: Sequence[Example], shots: Sequence[Example]) -> _Answers:
        """A generated answer of each row, where a metric wants one, and the likelihood of the reference."""
        prompts = [self._prompt(example, shots) for example in rows]
        references = [self.renderer.answer(example.answer) for example in rows]
        found = log_likelihoods(model, prompts, [[reference] for reference in references])
        texts = self._generate(model, prompts, references) if self._generates else [""] * len(rows)
        outcomes = [
            self._outcome(example, text, nll=-score, tokens=len(reference))
            for example, text, (score,), reference in zip(rows, texts, found, references, strict=True)
        ]
        return _Answers(outcomes, [{"prompt_sha256": _sha256(prompt)} for prompt in prompts])

    def _generate(self, model: Any, prompts: Sequence[list[int]], references: Sequence[list[int]]) -> list[str]:
        tokenizer = self.renderer.tokenizer
        stops = {reference[-1] for reference in references} | _end_tokens(model, tokenizer)
        found = generate(model, prompts, stops, self.spec.task.max_new_tokens)
        return [tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in found]

    def _finish(
        self,
        name: str,
        answers: _Answers,
        start: float,
        shots: list[str] | None = None,
        notes: Sequence[str] = (),
    ) -> Evaluation:
        """Metrics, intervals and the predictions' lines."""
        outcomes, notes = answers.outcomes, list(notes)
        bootstrap = {"resamples": self.spec.evaluate.resamples, "seed": self.spec.train.seed}
        calibration = answers.calibration
        if calibration is not None and calibration.strength is None:
            notes.append(f"label scores are not calibrated: {calibration.rows} validation rows, {FEWEST} are needed")
        return Evaluation(
            name=name,
            outcomes=tuple(outcomes),
            metrics={metric.name: evaluate(metric, outcomes, self.labels) for metric in self.metrics.values()},
            ci95={m.name: interval(m, outcomes, self.labels, **bootstrap) for m in self.metrics.values()},
            predictions=[self._line(outcome, more) for outcome, more in zip(outcomes, answers.extra, strict=True)],
            labels=self.labels,
            confusion=self._confusion(outcomes) if self._classifies else None,
            shots=shots,
            calibration=None if calibration is None else calibration.as_json(self.labels),
            notes=notes,
            seconds=time.perf_counter() - start,
        )

    def _outcome(self, example: Example, prediction: str, *, nll: float = math.nan, tokens: int = 0) -> Outcome:
        group = self._groups.get(example.id)
        return Outcome(example.id, example.references, prediction, nll, tokens, example.fields, group)

    def _line(self, outcome: Outcome, more: Mapping[str, Any]) -> dict[str, Any]:
        line: dict[str, Any] = {"id": outcome.id, "input": self._inputs[outcome.id]}
        line |= {"reference": outcome.reference, "prediction": outcome.prediction}
        if outcome.group is not None:
            line["group"] = outcome.group
        line |= more
        if not self._classifies:
            if len(outcome.references) > 1:
                line["references"] = list(outcome.references)
            line |= {"nll": outcome.nll, "tokens": outcome.tokens}
            for metric in self.metrics.values():
                if isinstance(metric, PerExample):
                    line[metric.name] = metric.score(outcome)
        return line

    def _confusion(self, outcomes: Sequence[Outcome]) -> list[list[int]]:
        from sklearn.metrics import confusion_matrix

        references = [outcome.reference for outcome in outcomes]
        predictions = [outcome.prediction for outcome in outcomes]
        matrix: list[list[int]] = confusion_matrix(references, predictions, labels=self.labels).tolist()
        return matrix


def label_likelihoods(
    model: Any, renderer: AnyRenderer, prompts: list[list[int]], labels: Sequence[str]
) -> list[list[float]]:
    """How likely each label is after each prompt, ``[prompts, labels]``, in nats; not calibrated."""
    if isinstance(renderer, EncoderRenderer):
        return label_scores(model, prompts, padding(renderer.tokenizer, model.config))
    return log_likelihoods(model, prompts, [[renderer.answer(label) for label in labels]] * len(prompts))


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """All tokens that end an answer by the tokenizer's or the model's own account."""
    ends = {tokenizer.eos_token_id}
    own = model.generation_config.eos_token_id
    ends |= set(own) if isinstance(own, list) else {own}
    return {int(end) for end in ends if end is not None}


def _sha256(prompt: str | Sequence[int]) -> str:
    """Of a text, or of token ids as decimal numbers with a blank between them."""
    text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    return hashlib.sha256(text.encode()).hexdigest()
