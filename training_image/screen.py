"""Several base models measured on the validation rows before any tuning; no test row is here.

The validation rows are asked as the test rows of a job are. What needs other rows takes training rows, on which no
base model was trained by us: the calibration of label scores as many as there are validation rows, the few-shot
examples some of the rest.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training_image import model as models
from training_image.checkpoints import Checkpoints
from training_image.data import AnyRenderer, Example, Splits, renderer_of
from training_image.data.render import TooLong
from training_image.errors import InputError
from training_image.evaluate import Evaluation, Evaluator, Outcome
from training_image.evaluate.bootstrap import interval
from training_image.evaluate.metrics import evaluate, metrics_of
from training_image.evaluate.outcomes import group_numbers
from training_image.evaluate.score import plain_log_likelihoods
from training_image.given import Given
from training_image.outputs import environment
from training_image.platform import Platform
from training_image.progress import emit, say
from training_image.spec import Candidate, Spec

TEXTS, WINDOW = 100, 512
"""Rows whose text is read for the bits per character, and the most tokens of each."""


@dataclass(frozen=True)
class Screening:
    """What all candidates have in common."""

    platform: Platform
    spec: Spec
    splits: Splits
    """``test`` holds the validation rows, ``validation`` the training rows that calibrate."""
    fingerprint: str


def screen(platform: Platform, given: Given, began: float) -> None:
    """Measure all candidates and write result.json. A candidate that cannot be loaded is told, and passed over.

    ``began``: when this process began, by `time.perf_counter`.
    """
    models.quiet()
    imported = time.perf_counter()
    spec, outputs = given.spec, given.outputs
    Checkpoints(platform.checkpoints, given.fingerprint)
    try:
        entries = _screen(platform, given)
        timings = {"import": imported - began - given.seconds, "start": given.seconds}
        timings |= {"evaluate": time.perf_counter() - imported}
        metric = metrics_of(spec.task.type, spec.task.metric_name)[spec.task.metric_name]
        result = {
            "job": spec.job,
            "task": {"type": spec.task.type, "metric": metric.name, "higher_is_better": metric.higher_is_better},
            "seed": spec.train.seed,
            "platform": {"name": platform.name, "device": "cuda" if torch.cuda.is_available() else "cpu"},
            "data": given.splits.counts,
            "screening": entries,
            "verdict": None,
            "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
        }
        outputs.finish(result, spec, environment(spec.train.seed, given.row_files))
        emit("done", output=str(outputs.folder))
    finally:
        if platform.mirror is not None:
            outputs.copy_to(platform.mirror)


def _screen(platform: Platform, given: Given) -> list[dict[str, Any]]:
    """What was measured of each candidate."""
    spec, splits = given.spec, given.splits
    if splits.test or not splits.validation:
        raise InputError("a screening takes validation rows, and no test row", "Start it by ftlaunch screen.")
    emit("check", **{name: len(rows) for name, rows in splits.named()})
    screening = Screening(platform, spec, validation_in_the_place_of_test(splits), given.fingerprint)
    return [_measured(screening, place, candidate) for place, candidate in enumerate(spec.candidates)]


def validation_in_the_place_of_test(splits: Splits) -> Splits:
    """The rows as the evaluator takes them: validation rows to be asked, training rows to calibrate on, the rest."""
    train, asked = list(splits.train), list(splits.validation)
    calibrating: list[Example] = []
    if splits.labels:
        # Every label keeps half of its rows, so that the few-shot examples have some.
        by_label = {label: [row for row in train if row.answer == label] for label in splits.labels}
        pool = [row for rows in by_label.values() for row in rows[: len(rows) // 2]]
        step = max(1.0, len(pool) / len(asked))
        calibrating = [pool[int(place * step)] for place in range(min(len(pool), len(asked)))]
    taken = {id(row) for row in calibrating}
    return replace(splits, train=[row for row in train if id(row) not in taken], validation=calibrating, test=asked)


def _measured(screening: Screening, place: int, candidate: Candidate) -> dict[str, Any]:
    start = time.perf_counter()
    entry: dict[str, Any] = {"name": candidate.name, "kind": None, "evaluations": {}}
    try:
        entry |= _candidate(screening, place, candidate)
    except InputError as error:
        entry["error"] = error.message
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    entry["seconds"] = round(time.perf_counter() - start, 1)
    shown = {name: each["metrics"][screening.spec.task.metric_name] for name, each in entry["evaluations"].items()}
    emit("screen", model=candidate.name, **{name: value for name, value in shown.items() if value is not None})
    return entry


def _candidate(screening: Screening, place: int, candidate: Candidate) -> dict[str, Any]:
    own = screening.spec.model.model_copy(update={"id": candidate.id, "revision": None})
    spec, splits = screening.spec.model_copy(update={"model": own, "base": candidate.name}), screening.splits
    setting = models.choose(spec, screening.platform.data, screening.platform.local_rank, splits.labels)
    say(f"{candidate.name}: method {setting.method}: {setting.why}")
    tokenizer, base = models.load_tokenizer(setting), models.load_base(setting)
    kept = Checkpoints(screening.platform.checkpoints / f"candidate-{place}", screening.fingerprint)
    entry: dict[str, Any] = {"parameters": models.parameters(base), "method": setting.method}
    if setting.encoder:
        probe = _kept(kept, "probe", lambda: probe_evaluation(base, tokenizer, spec, splits))
        return entry | {"kind": "encoder", "bits_per_character": None, "evaluations": {"probe": probe.as_json()}}
    renderer = renderer_of(tokenizer, spec, splits.labels, setting.config)
    splits = that_fit(splits, renderer)
    evaluator = Evaluator(spec, splits, renderer)
    found = {
        "zero_shot": _kept(kept, "zero_shot", lambda: evaluator.zero_shot(base)),
        "few_shot": _kept(kept, "few_shot", lambda: evaluator.few_shot(base)),
    }
    bits = kept.number("bits")
    if bits is None:
        bits = bits_per_character(base, tokenizer, [row.text for row in splits.test[:TEXTS]])
        kept.save_number("bits", bits)
    told = {name: each.as_json() for name, each in found.items()}
    return entry | {"kind": "decoder", "bits_per_character": bits, "evaluations": told}


def that_fit(splits: Splits, renderer: AnyRenderer) -> Splits:
    """Without the rows that no cut makes fit, of which a job tells."""

    def fits(row: Example) -> bool:
        try:
            renderer.prompt(row)
        except TooLong:
            return False
        return True

    train, validation, test = ([row for row in rows if fits(row)] for _, rows in splits.named())
    return replace(splits, train=train, validation=validation, test=test)


def _kept(kept: Checkpoints, name: str, make: Callable[[], Evaluation]) -> Evaluation:
    """Evaluate, or take what an earlier start has finished."""
    found = kept.evaluation(name)
    if found is None:
        found = make()
        kept.save_evaluation(found)
    return found


def bits_per_character(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """How many bits a character of the texts costs the model: fewer, the nearer it is to them.

    By character, not by token, so that models with different vocabularies can be compared. Each text is foretold from
    the token that a text begins after in training (BOS, else EOS).
    """
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"][:WINDOW] for text in texts]
    rows = [row for row in rows if row]
    characters = sum(len(tokenizer.decode(row)) for row in rows)
    found = plain_log_likelihoods(model, [[first]] * len(rows), [[row] for row in rows])
    return -sum(total for (total,) in found) / math.log(2) / max(1, characters)


def probe_evaluation(model: Any, tokenizer: Any, spec: Spec, splits: Splits) -> Evaluation:
    """What an encoder knows of the labels without tuning: logistic regression on its mean-pooled last layer.

    An encoder has no zero-shot; this is the usual stand-in (a linear probe), trained on the training rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    start = time.perf_counter()
    train = [*splits.train, *splits.validation]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=spec.train.seed))
    probe.fit(_features(model, tokenizer, spec, train), [row.answer for row in train])
    said = probe.predict(_features(model, tokenizer, spec, splits.test))
    groups = group_numbers(splits.test, spec.data.group)
    outcomes = tuple(
        Outcome(row.id, row.references, str(label), fields=row.fields, group=groups.get(row.id))
        for row, label in zip(splits.test, said, strict=True)
    )
    metrics = metrics_of(spec.task.type, spec.task.metric_name).values()
    draws = {"resamples": spec.evaluate.resamples, "seed": spec.train.seed}
    return Evaluation(
        name="probe",
        outcomes=outcomes,
        metrics={metric.name: evaluate(metric, outcomes, splits.labels) for metric in metrics},
        ci95={metric.name: interval(metric, outcomes, splits.labels, **draws) for metric in metrics},
        seconds=time.perf_counter() - start,
        predictions=[],
        labels=splits.labels,
    )


def _features(model: Any, tokenizer: Any, spec: Spec, rows: Sequence[Example]) -> NDArray[np.float64]:
    """The mean of each row's last hidden states, ``[rows, width]``."""
    longest = min(spec.data.max_length, WINDOW)
    found = []
    with models.evaluating(model):
        for place in range(0, len(rows), 16):
            texts = [row.text for row in rows[place : place + 16]]
            batch = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            batch = {name: value.to(model.device) for name, value in batch.items()}
            hidden = model.base_model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1).float()
            found.append(((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy())
    return np.concatenate(found).astype(np.float64)
