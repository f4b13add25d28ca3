"""One job from its files to its verdict: set up, baselines, training, the saved adapter loaded afresh, outputs."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
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
from training_image.outputs import Outputs, environment, require_space
from training_image.platform import Platform, StopSignal
from training_image.processes import Processes
from training_image.progress import emit, emit_mapping, say
from training_image.spec import Spec
from training_image.tracking import Tracker
from training_image.train import Hooks, Report, Trainer, plan_steps

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
    processes: Processes
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    revision: str | None = None

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a part to `timings`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = round(self.timings.get(name, 0.0) + time.perf_counter() - start, 3)

    def evaluate(self, name: str, make: Callable[[], Evaluation]) -> None:
        """Evaluate, or take what an earlier start has finished."""
        found = self.checkpoints.evaluation(name)
        if found is None:
            with self.timed("evaluate"):
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
    try:
        _run(job, baselines_only)
    finally:
        if platform.mirror is not None and platform.main:
            job.outputs.copy_to(platform.mirror)


def _run(job: Run, baselines_only: bool) -> None:
    with job.timed("load"):
        base = models.load_base(job.setting)
    job.parameters = models.parameters(base)
    job.revision = models.revision(base) or job.spec.model.revision
    emit("load", model=job.spec.base_model, device=str(job.setting.device), dtype=job.setting.dtype_name)
    if not baselines_only:
        _require_space(job, base)
    early, end = job.processes.from_first(lambda: _baselines(job, base, baselines_only))
    if early is not None:
        if job.processes.first:
            _finish(job, early, None, None, None)
        return
    before = _forgetting(job, base, "before") if job.processes.first else None
    progress, trainer = _train(job, base, end)
    if not job.processes.first:
        return
    with job.timed("save"):
        folder = job.outputs.adapter(trainer.model, job.renderer.tokenizer, job.renderer.plain_template, job.spec)
    emit("save", folder="adapter")
    with job.timed("load"):
        tuned = models.load_adapter(trainer.unload(), folder)
    job.evaluate("tuned", lambda: job.evaluator.tuned(tuned))
    after = _forgetting(job, tuned, "after")
    forgetting = None if before is None else {"before": before, "after": after, "unit": "nats/token"}
    _finish(job, verdict(job.evaluations, job.spec), progress, trainer, forgetting)


def _set_up(platform: Platform, spec: Spec, stop: StopSignal) -> Run:
    emit("start", job=spec.job, platform=platform.name)
    _quiet()
    fingerprint = _fingerprint(platform)
    known = Checkpoints.belongs(platform.checkpoints, fingerprint)
    outputs = Outputs(platform.output, known=known)
    checkpoints = Checkpoints(platform.checkpoints, fingerprint)
    splits = load_splits(spec, platform.data)
    setting = models.choose(spec, platform.data, platform.local_rank)
    renderer = Renderer(models.load_tokenizer(setting), spec, splits.labels)
    samples = render_splits(spec, splits, renderer)
    if not any(sample.supervised for sample in samples["train"]):
        raise InputError("every token of the training rows is masked", "Check data.columns and data.max_length.")
    emit("check", **{name: len(rows) for name, rows in splits.named()})
    return Run(
        platform=platform,
        spec=spec,
        splits=splits,
        samples=samples,
        renderer=renderer,
        evaluator=Evaluator(spec, splits, renderer),
        setting=setting,
        checkpoints=checkpoints,
        outputs=outputs,
        stop=stop,
        processes=Processes(platform.rank, platform.world_size, setting.device),
    )


def _fingerprint(platform: Platform) -> str:
    """SHA-256 over the job's spec and the files of its rows."""
    digest = hashlib.sha256(platform.spec.read_bytes())
    for path in sorted(path for path in platform.data.iterdir() if path.is_file() and path != platform.spec):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _require_space(job: Run, base: Any) -> None:
    """Before anything is trained: room for the adapter in the output, and for its checkpoints."""
    adapter = models.adapter_bytes(base, job.spec.train.rank)
    # A checkpoint holds the adapter, the best one and two moments of each weight; two are kept while one is written.
    require_space({job.platform.output: adapter, job.platform.checkpoints: 3 * 4 * adapter})


def _quiet() -> None:
    """Leave the log to the job's own lines: no bars (they are no lines), no libraries' hints."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _baselines(job: Run, base: Any, only: bool) -> tuple[Verdict | None, float | None]:
    """The verdict, where the baselines end the job, and when the training has to end."""
    if job.spec.task.type == "classification":
        job.evaluate("classical", job.evaluator.classical)
    job.evaluate("zero_shot", lambda: job.evaluator.zero_shot(base))
    job.evaluate("few_shot", lambda: job.evaluator.few_shot(base))
    early = not_needed(job.evaluations, job.spec) or (_untuned(job) if only else None)
    reserve = _RESERVE * job.evaluations["zero_shot"].seconds + 2 * job.timings["load"] + 10
    return early, None if job.platform.deadline is None else job.platform.deadline - reserve


def _forgetting(job: Run, model: Any, when: str) -> float | None:
    if not job.spec.evaluate.forgetting:
        return None
    known = job.checkpoints.number(f"forgetting-{when}")
    if known is None:
        with job.timed("evaluate"):
            known = general_loss(model, job.renderer.tokenizer)
        job.checkpoints.save_number(f"forgetting-{when}", known)
    return known


def _train(job: Run, base: Any, end: float | None) -> tuple[Progress, Trainer]:
    settings = job.spec.train
    peak = models.learning_rate(job.spec, job.parameters)
    tokenizer = job.renderer.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model = models.add_adapter(base, job.spec)
    trainer = Trainer(model, job.samples["train"], job.setting, settings, peak, pad, job.processes)
    progress = trainer.restore(job.checkpoints)
    if progress.resumed_from is not None:
        say(f"going on from the checkpoint of step {progress.step}")
    limits = plan_steps(settings, len(job.samples["train"]), end)
    with job.timed("train"), _reporting(job, progress) as report:
        hooks = Hooks(
            checkpoints=job.checkpoints,
            validate=lambda model: job.processes.from_first(lambda: job.evaluator.validation_metric(model)),
            higher_is_better=job.evaluator.metrics[job.spec.task.metric_name].higher_is_better,
            report=report,
            stop=job.stop,
        )
        return trainer.fit(limits, hooks, progress), trainer


@contextlib.contextmanager
def _reporting(job: Run, progress: Progress) -> Iterator[Report]:
    """Where the lines of metrics.jsonl go; those of an earlier start stand there once."""
    if not job.processes.first:
        yield lambda line: None
        return
    job.outputs.metrics(progress.history)
    tracker = Tracker(job.outputs.folder / "tensorboard", job.spec.tracking, progress.history)

    def report(line: Mapping[str, float]) -> None:
        job.outputs.add_metrics(line)
        tracker.log(line)

    try:
        yield report
    finally:
        tracker.close()


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
    used = spec.train.model_dump() | {
        "method": job.setting.method,
        "learning_rate": models.learning_rate(spec, job.parameters),
        **({} if trainer is None else trainer.resolved()),
    }
    result = {
        "job": spec.job,
        "task": {"type": spec.task.type, "metric": spec.task.metric_name},
        "model": {"id": spec.base_model, "revision": job.revision, "parameters": job.parameters},
        "method": job.setting.method,
        "seed": spec.train.seed,
        "settings": used,
        "platform": {
            "name": job.platform.name,
            "device": job.setting.device.type,
            "attention": job.setting.attention,
            "dtype": job.setting.dtype_name,
            "batching": None if trainer is None else "padded" if trainer.layout == "padded" else "packed",
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
    emit("done", output=str(job.outputs.folder))


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
