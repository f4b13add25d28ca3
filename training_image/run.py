"""One job from its files to its verdict: set up, baselines, training, the saved adapter loaded afresh, outputs."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from transformers.utils import logging as transformers_logging

from training_image import model as models
from training_image.checkpoints import Checkpoints, Progress
from training_image.data import Renderer, Sample, Splits, load_splits, render_splits
from training_image.errors import InputError
from training_image.evaluate import (
    Evaluation,
    Evaluator,
    Verdict,
    general_loss,
    guards,
    not_needed,
    slices,
    verdict,
)
from training_image.outputs import Outputs, environment
from training_image.platform import Platform, StopSignal
from training_image.progress import emit, emit_mapping, say
from training_image.spec import Spec
from training_image.tracking import Tracker
from training_image.train import Limits, Trainer, plan_steps

_RESERVE = 2.5
"""Before the deadline, this many times the zero-shot evaluation's seconds are kept for the final one."""


@dataclass(slots=True)
class Run:
    """All parts of a job that is under way."""

    platform: Platform
    spec: Spec
    splits: Splits
    samples: dict[str, list[Sample]]
    renderer: Renderer
    evaluator: Evaluator
    setting: models.Setting
    checkpoints: Checkpoints
    outputs: Outputs
    stop: StopSignal
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    parameters: int = 0

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a part to `timings`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = round(self.timings.get(name, 0.0) + time.perf_counter() - start, 3)

    def evaluate(self, name: str, make: Callable[[], Evaluation]) -> None:
        """Evaluate, or take what an earlier start has finished. A stop that is asked for ends it at once."""
        found = self.checkpoints.evaluation(name)
        if found is None:
            with self.timed("evaluate"), self.stop.at_once():
                found = make()
            self.checkpoints.save_evaluation(found)
        self.evaluations[name] = found
        self.outputs.predictions(found)
        metric = self.spec.task.metric_name
        emit_mapping(name, {"n": found.n, metric: found.metrics[metric], "seconds": found.seconds})


def read_spec(platform: Platform) -> Spec:
    """Read spec.json. Raises InputError with every key that is wrong."""
    try:
        return Spec.model_validate_json(platform.spec.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {platform.spec}: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise InputError(f"{platform.spec}: {wrong}") from error


def run(platform: Platform, stop: StopSignal, *, baselines_only: bool = False) -> None:
    """Run a job to its verdict. Raises RunError for whatever ends it early."""
    began = time.perf_counter()
    job = _set_up(platform, read_spec(platform), stop)
    job.timings["start"] = round(time.perf_counter() - began, 3)
    with job.timed("load"):
        base = models.load_base(job.setting)
        job.parameters = models.parameters(base)
    emit("load", model=job.spec.model.id, device=str(job.setting.device), dtype=job.setting.dtype_name)
    _baselines(job, base)
    early = not_needed(job.evaluations, job.spec)
    if early is not None or baselines_only:
        judged = early or _untuned(job)
        _finish(job, judged, None, None, None)
        return
    before = _forgetting(job, base, "before")
    progress, trainer = _train(job, base)
    with job.timed("save"):
        template = job.renderer.plain_template
        folder = job.outputs.adapter(trainer.model, job.renderer.tokenizer, template)
    emit("save", folder="adapter")
    del base, trainer.model
    with job.timed("load"):
        tuned = models.load_adapter(job.setting, folder)
    job.evaluate("tuned", lambda: job.evaluator.tuned(tuned))
    after = _forgetting(job, tuned, "after")
    forgetting = None if before is None else {"before": before, "after": after, "unit": "nats/token"}
    _finish(job, verdict(job.evaluations, job.spec), progress, trainer, forgetting)


def _set_up(platform: Platform, spec: Spec, stop: StopSignal) -> Run:
    emit("start", job=spec.job, platform=platform.name)
    _quiet()
    outputs = Outputs(platform.output, spec.job)
    splits = load_splits(spec, platform.data)
    setting = models.choose(spec, platform.data)
    renderer = Renderer(models.load_tokenizer(setting), spec, splits.labels)
    samples = render_splits(spec, splits, renderer)
    if not any(sample.supervised for sample in samples["train"]):
        raise InputError("every token of the training rows is masked", "Check data.columns and data.max_length.")
    emit("check", **{name: len(rows) for name, rows in splits.named()})
    fingerprint = hashlib.sha256(platform.spec.read_bytes()).hexdigest()
    torch.manual_seed(spec.train.seed)
    return Run(
        platform=platform,
        spec=spec,
        splits=splits,
        samples=samples,
        renderer=renderer,
        evaluator=Evaluator(spec, splits, renderer),
        setting=setting,
        checkpoints=Checkpoints(platform.checkpoints, fingerprint),
        outputs=outputs,
        stop=stop,
    )


def _quiet() -> None:
    """Leave the log to the job's own lines: no bars (they are no lines), no libraries' hints."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _baselines(job: Run, base: Any) -> None:
    if job.spec.task.type == "classification":
        job.evaluate("classical", job.evaluator.classical)
    job.evaluate("zero_shot", lambda: job.evaluator.zero_shot(base))
    job.evaluate("few_shot", lambda: job.evaluator.few_shot(base))


def _forgetting(job: Run, model: Any, when: str) -> float | None:
    if not job.spec.evaluate.forgetting:
        return None
    known = job.checkpoints.number(f"forgetting-{when}")
    if known is None:
        with job.timed("evaluate"), job.stop.at_once():
            known = general_loss(model, job.renderer.tokenizer)
        job.checkpoints.save_number(f"forgetting-{when}", known)
    return known


def _train(job: Run, base: Any) -> tuple[Progress, Trainer]:
    settings = job.spec.train
    peak = models.learning_rate(job.spec, job.parameters)
    tokenizer = job.renderer.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    trainer = Trainer(models.add_adapter(base, job.spec), job.samples["train"], job.setting, settings, peak, pad)
    progress = job.checkpoints.restore(trainer.model, trainer.optimizer, trainer.scaler)
    if progress.resumed_from is not None:
        say(f"going on from the checkpoint of step {progress.step}")
    job.outputs.metrics(progress.history)
    deadline = job.platform.deadline
    end = None if deadline is None else deadline - _RESERVE * job.evaluations["zero_shot"].seconds - 10
    limits = plan_steps(settings, len(job.samples["train"]), end)
    higher = job.evaluator.metrics[job.spec.task.metric_name].higher_is_better
    tracker = Tracker(job.outputs.folder / "tensorboard", job.spec.tracking, progress.history)

    def report(line: dict[str, float]) -> None:
        job.outputs.add_metrics(line)
        tracker.log(line)

    try:
        with job.timed("train"):
            return _fit(job, trainer, limits, report, progress, higher), trainer
    finally:
        tracker.close()


def _fit(
    job: Run, trainer: Trainer, limits: Limits, report: Callable[[dict[str, float]], None], at: Progress, higher: bool
) -> Progress:
    validate = (job.evaluator.validation_metric, higher)
    return trainer.fit(limits, job.checkpoints, validate, report, job.stop, at)


def _untuned(job: Run) -> Verdict:
    """What is said where only the baselines were asked for."""
    metric = job.spec.task.metric_name
    sign = 1 if job.evaluator.metrics[metric].higher_is_better else -1
    best = max(("zero_shot", "few_shot"), key=lambda name: sign * job.evaluations[name].metrics[metric])
    value = job.evaluations[best].metrics[metric]
    text = f"Only the baselines were measured; the better one, {best}, has a {metric} of {value:.3f}."
    return Verdict("inconclusive", best, metric, None, None, text)


def _finish(
    job: Run, judged: Verdict, progress: Progress | None, trainer: Trainer | None, forgetting: dict[str, Any] | None
) -> None:
    spec = job.spec
    used = spec.train.model_dump()
    used["method"] = job.setting.method
    used["learning_rate"] = models.learning_rate(spec, job.parameters)
    result = {
        "job": spec.job,
        "task": {"type": spec.task.type, "metric": spec.task.metric_name},
        "model": {"id": spec.model.id, "revision": spec.model.revision, "parameters": job.parameters},
        "method": job.setting.method,
        "seed": spec.train.seed,
        "settings": used,
        "platform": {
            "name": job.platform.name,
            "device": job.setting.device.type,
            "attention": job.setting.attention,
            "dtype": job.setting.dtype_name,
            "batching": None if trainer is None else "packed" if trainer.packed else "padded",
        },
        "data": job.splits.counts,
        "evaluations": {name: each.as_json() for name, each in job.evaluations.items()},
        "verdict": judged.as_json(),
        "slices": slices(job.evaluations, spec),
        "guards": [] if progress is None else guards(progress.history),
        "forgetting": forgetting,
        "training": None if progress is None else _training(progress, job),
        "timings": job.timings,
    }
    job.outputs.finish(result, spec, environment(spec.train.seed))
    emit("verdict", outcome=judged.outcome)
    say(judged.text)


def _training(progress: Progress, job: Run) -> dict[str, Any]:
    per_epoch = plan_steps(job.spec.train, len(job.samples["train"]), None).steps_per_epoch
    if job.setting.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(job.setting.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "steps": progress.step,
        "epochs": round(progress.step / per_epoch, 4),
        "tokens": progress.tokens,
        "supervised_tokens": progress.supervised_tokens,
        "seconds": round(progress.seconds, 3),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "peak_memory_bytes": peak,
        "stopped_by": progress.stopped_by,
        "best_step": progress.best_step or progress.step,
        "resumed_from": progress.resumed_from,
    }
