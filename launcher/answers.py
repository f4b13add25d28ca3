"""Answers of a base model and of the same model tuned, to one text. Needs the extra ``local``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import yamlfile
from launcher.export import of_commit
from launcher.store import Record
from training_image.errors import InputError
from training_image.spec import Spec


@dataclass(frozen=True)
class Answer:
    """What one model says."""

    text: str
    probabilities: dict[str, float] | None
    """Of each label, calibrated as the job's evaluation was; None for a task whose answers are generated."""


@dataclass(frozen=True)
class Answers:
    """Both models' answers."""

    base: Answer | None
    """None for an encoder, which has no answer before its head is trained."""
    tuned: Answer


def ask(record: Record, folder: Path, text: str, context: str | None) -> Answers:
    """Load base and adapter here and ask both, prompted as in the job's evaluation.

    Raises InputError for a job that tuned nothing, a base model that is not here, or a question without its context.
    """
    adapter = folder / "adapter"
    if record.plan is None or not adapter.is_dir():
        raise InputError(f"{record.job} has no adapter: nothing was tuned", hint=f"see {folder / 'README.md'}")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    spec = of_commit(_with_base(record.plan.spec, record), result)
    from peft import PeftModel

    from training_image import model as models
    from training_image.data import renderer_of

    models.quiet()
    # This machine need not take the attention that the job's own one took.
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"attention": "auto"})})
    labels = list(result["evaluations"]["tuned"].get("labels") or [])
    setting = models.choose(spec, folder, labels=labels)
    renderer = renderer_of(models.load_tokenizer(setting), spec, labels, setting.config)
    prompt = _prompt(spec, renderer, labels, text, context, folder)
    evaluations = result["evaluations"]
    both = PeftModel.from_pretrained(models.load_base(setting), str(adapter)).eval()
    tuned = _answer(both, renderer, spec, prompt, evaluations["tuned"])
    if setting.encoder:
        return Answers(None, tuned)
    with both.disable_adapter():
        return Answers(_answer(both, renderer, spec, prompt, evaluations["zero_shot"]), tuned)


def _with_base(spec: Spec, record: Record) -> Spec:
    """The spec with the base model's own place instead of the staged one."""
    submitted = yamlfile.parse(record.as_submitted, record.job).value
    place: str = submitted["model"]["id"]
    if place.startswith("/") and not Path(place).is_dir():
        raise InputError(f"the base model {place} is not here any more", hint="put it back, or run the job again")
    return spec.model_copy(update={"model": spec.model.model_copy(update={"id": place})})


def _prompt(spec: Spec, renderer: Any, labels: list[str], text: str, context: str | None, folder: Path) -> list[int]:
    """Token ids that ask for the text's answer, made of a row as the job's own were."""
    from training_image.data.build import Builder
    from training_image.data.problems import Problem

    if spec.task.type == "completion":
        ids: list[int] = renderer.tokenizer(text)["input_ids"]
        return ids
    if spec.task.type == "qa" and not context:
        raise InputError("a question needs the text that answers it", hint="give it with --context")
    rows: dict[str, dict[str, Any]] = {
        "classification": {"text": text, "label": labels[0] if labels else ""},
        "qa": {"question": text, "context": context, "answers": ["-"]},
        "instruction": {"prompt": text, "completion": "-"},
        "chat": {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "-"}]},
    }
    row = {spec.data.columns.get(role, role): value for role, value in rows[spec.task.type].items()}
    built = Builder(spec, labels, _may_be_unanswerable(folder)).build(row, 1, "test")
    if isinstance(built, Problem):
        raise InputError(built.message)
    asked: list[int] = renderer.prompt(built)
    return asked


def _may_be_unanswerable(folder: Path) -> bool:
    from training_image.data.build import UNANSWERABLE

    with (folder / "predictions" / "tuned.jsonl").open(encoding="utf-8") as lines:
        return any(json.loads(line)["reference"] == UNANSWERABLE for line in lines)


def _answer(model: Any, renderer: Any, spec: Spec, prompt: list[int], evaluation: dict[str, Any]) -> Answer:
    if spec.task.type == "classification":
        return _label(model, renderer, prompt, evaluation)
    from training_image.evaluate.generate import generate

    (tokens,) = generate(model, [prompt], set(renderer.end_ids), spec.task.max_new_tokens)
    return Answer(renderer.tokenizer.decode(tokens, skip_special_tokens=True).strip(), None)


def _label(model: Any, renderer: Any, prompt: list[int], evaluation: dict[str, Any]) -> Answer:
    import numpy

    from training_image.evaluate import label_likelihoods
    from training_image.evaluate.calibrate import Calibration

    labels: list[str] = evaluation["labels"]
    told = evaluation["calibration"]
    bias = tuple(float(told["bias"][label]) for label in labels)
    calibration = Calibration(told["temperature"], bias, told["strength"], told["rows"])
    scores = label_likelihoods(model, renderer, [prompt], labels)
    chances = calibration.probabilities(numpy.array(scores))[0].tolist()
    found = dict(zip(labels, chances, strict=True))
    return Answer(max(found, key=lambda label: found[label]), found)
