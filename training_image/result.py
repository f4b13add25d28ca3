"""What a run says in result.json."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import torch

from training_image import model as models
from training_image.evaluate import Verdict, guards, slices
from training_image.evaluate.outcomes import finite
from training_image.train import Trainer, plan_steps

if TYPE_CHECKING:
    from training_image.checkpoints import Progress
    from training_image.run import Run


def result(
    job: Run,
    judged: Verdict | None,
    progress: Progress | None,
    trainer: Trainer | None,
    forgetting: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of result.json but its schema; parts that did not happen are None."""
    spec = job.spec
    used = spec.train.model_dump() | {
        "method": job.setting.method,
        "learning_rate": models.learning_rate(spec, job.parameters, encoder=job.setting.encoder),
        **({} if trainer is None else trainer.resolved()),
    }
    return {
        "job": spec.job,
        "task": {
            "type": spec.task.type,
            "metric": spec.task.metric_name,
            "higher_is_better": job.evaluator.metrics[spec.task.metric_name].higher_is_better,
        },
        "model": {"id": spec.base_model, "revision": job.setting.revision, "parameters": job.parameters},
        "method": job.setting.method,
        "seed": spec.train.seed,
        "settings": used,
        "platform": {
            "name": job.platform.name,
            "device": job.setting.device.type,
            "attention": job.setting.attention if trainer is None else trainer.attention,
            "dtype": job.setting.dtype_name,
            "batching": None if trainer is None else "padded" if trainer.layout == "padded" else "packed",
            "parallel": None if job.processes.alone else _parallel(job),
        },
        "data": job.splits.counts,
        "evaluations": {name: each.as_json() for name, each in job.evaluations.items()},
        "verdict": None if judged is None else judged.as_json(),
        "slices": slices(job.evaluations, spec) if job.evaluations else {},
        "guards": [] if progress is None else guards(progress.history),
        "forgetting": forgetting,
        "training": None if progress is None else _training(progress, job, [] if trainer is None else trainer.probed),
        "tracking": job.links,
        "timings": job.timings,
    }


def _parallel(job: Run) -> dict[str, Any]:
    """How several processes share the job: each with the whole base, or with a part of it."""
    base = "sharded" if job.setting.sharded else "whole"
    return {"processes": job.processes.size, "base": base, "why": job.why}


def _training(progress: Progress, job: Run, probed: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = max(progress.seconds, 1e-9)
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
        "tokens_per_second": round(progress.tokens / seconds, 1),
        "supervised_tokens_per_second": round(progress.supervised_tokens / seconds, 1),
        "probe": probed,
        "peak_memory_bytes": peak,
        "stopped_by": progress.stopped_by,
        "best_step": progress.best_step or progress.step,
        "best_value": None if progress.best_value is None else finite(progress.best_value),
        "resumed_from": progress.resumed_from,
    }
