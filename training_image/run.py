"""One job from its files to its verdict: set up, baselines, training, the saved adapter loaded afresh, outputs."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from training_image import model as models
from training_image import sharding
from training_image.checkpoints import Checkpoints, Progress
from training_image.data import (
    IGNORED,
    AnyRenderer,
    Sample,
    Splits,
    render_splits,
    renderer_of,
    require_embeddings,
)
from training_image.errors import InputError
from training_image.evaluate import (
    Evaluation,
    Evaluator,
    Verdict,
    general_loss,
    not_needed,
    verdict,
)
from training_image.given import Given
from training_image.outputs import Outputs, environment, require_space
from training_image.platform import Platform, StopSignal
from training_image.processes import Processes
from training_image.progress import emit, emit_mapping, say
from training_image.result import result
from training_image.spec import Spec
from training_image.studio import Studio
from training_image.tracking import Trackers
from training_image.train import Hooks, Report, Trainer, plan_steps

T = TypeVar("T")

_RESERVE = 2.5
"""Before the deadline, this many times the seconds of an evaluation are kept for the final one."""


@dataclass(slots=True)
class Run:
    """All parts of a job that is under way."""

    platform: Platform
    spec: Spec
    splits: Splits
    samples: dict[str, list[Sample]]
    renderer: AnyRenderer
    evaluator: Evaluator
    setting: models.Setting
    checkpoints: Checkpoints
    outputs: Outputs
    row_files: dict[str, str]
    """SHA-256 of the files of the job's rows, by name."""
    stop: StopSignal
    processes: Processes
    studio: Studio
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    links: dict[str, str] = field(default_factory=dict)
    """Where each tracker shows the run."""
    why: str = ""
    """Why the base is sharded, or is not, over several processes."""

    @property
    def runs_base(self) -> bool:
        """Whether this process has to be there where the base is run for all."""
        return self.processes.first or self.setting.sharded

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a part to `timings`; those of another part inside it count there alone."""
        start, before = time.perf_counter(), sum(self.timings.values())
        try:
            yield
        finally:
            inside = sum(self.timings.values()) - before
            seconds = time.perf_counter() - start - inside
            self.timings[name] = round(self.timings.get(name, 0.0) + seconds, 3)

    def with_base(self, make: Callable[[], T]) -> T:
        """Made of the base by the first process, or where it is sharded by all together; all get the first one's."""
        if not self.setting.sharded:
            return self.processes.from_first(make)
        made = make()
        return self.processes.from_first(lambda: made)

    def kept(self, find: Callable[[], T]) -> T:
        """What the first process's checkpoints hold, where all that run the base have to know."""
        return self.processes.from_first(find) if self.setting.sharded else find()

    def evaluate(self, name: str, make: Callable[[], Evaluation]) -> None:
        """Evaluate, or take what an earlier start has finished."""
        found = self.kept(lambda: self.checkpoints.evaluation(name))
        if found is None:
            with self.timed("evaluate"):
                found = make()
            if self.processes.first:
                self.checkpoints.save_evaluation(found)
        self.evaluations[name] = found
        if self.processes.first:
            self.outputs.predictions(found)
        metric = self.spec.task.metric_name
        emit_mapping(name, {"n": found.n, metric: found.metrics[metric], "seconds": found.seconds})
        self.studio.log({f"{name}/{metric}": found.metrics[metric]}, 0)


def run(
    platform: Platform, given: Given, stop: StopSignal, *, baselines_only: bool = False, began: float | None = None
) -> None:
    """Run a job to its verdict. Raises RunError for whatever ends it early.

    ``began``: when this process began, by `time.perf_counter`; until now it has looked at what it was given, and loaded
    the frameworks.
    """
    imported = time.perf_counter()
    job = _set_up(platform, given, stop)
    if began is not None:
        job.timings["import"] = round(imported - began - given.seconds, 3)
    job.timings["start"] = round(given.seconds + time.perf_counter() - imported, 3)
    try:
        _run(job, baselines_only)
    finally:
        job.studio.close()
        if platform.mirror is not None and platform.main:
            job.outputs.copy_to(platform.mirror)


def _run(job: Run, baselines_only: bool) -> None:
    with job.timed("load"):
        base = models.load_base(job.setting)
    job.parameters = models.parameters(base)
    emit("load", model=job.spec.base_model, device=str(job.setting.device), dtype=job.setting.dtype_name)
    if not baselines_only:
        _require_space(job, base)
    if job.setting.sharded:
        with job.timed("load"):
            sharding.shard(base, job.processes)
    if job.spec.goal == "trial":
        _trial(job, base)
        return
    with job.timed("evaluate"):
        early, end = job.with_base(lambda: _baselines(job, base, baselines_only))
    if early is not None:
        if job.processes.first:
            _finish(job, early, None, None, None)
        return
    before = _forgetting(job, base, "before") if job.runs_base else None
    progress, trainer = _train(job, base, end)
    if not job.runs_base:
        return
    base = None  # `_saved_and_loaded` may have to let go of it
    tuned = _saved_and_loaded(job, trainer)
    job.evaluate("tuned", lambda: job.evaluator.tuned(tuned))
    after = _forgetting(job, tuned, "after")
    if not job.processes.first:
        return
    forgetting = None if before is None else {"before": before, "after": after, "unit": "nats/token"}
    with job.timed("evaluate"):
        judged = verdict(job.evaluations, job.spec)
    _finish(job, judged, progress, trainer, forgetting)


def _saved_and_loaded(job: Run, trainer: Trainer) -> Any:
    """The tuned model, from the files that the first process has written."""
    folder = None
    if job.processes.first:
        with job.timed("save"):
            initial = _initial(job) if job.spec.train.variant == "pissa" else None
            told = (job.renderer.tokenizer, job.renderer.plain_template, job.spec)
            folder = job.outputs.adapter(trainer.model, *told, initial, revision=job.setting.revision)
        emit("save", folder="adapter")
    with job.timed("load"):
        base = trainer.unload()
        if models.base_is_changed(job.spec, job.setting):
            del base
            gc.collect()  # two bases at a time may be more than the device holds
            torch.cuda.empty_cache()
            base = models.load_base(job.setting)
        if job.setting.sharded:
            return sharding.load_adapter(base, folder, job.processes)
        assert folder is not None  # no other process comes here
        return models.load_adapter(base, folder)


def _trial(job: Run, base: Any) -> None:
    """Train, and say how well the validation rows are answered: no test row is here, and no adapter is kept."""
    deadline = job.platform.deadline
    progress, trainer = _train(job, base, None if deadline is None else deadline - 10)
    if job.processes.first:
        _finish(job, None, progress, trainer, None)


def _set_up(platform: Platform, given: Given, stop: StopSignal) -> Run:
    models.quiet()
    spec, splits = given.spec, given.splits
    checkpoints = Checkpoints(platform.checkpoints, given.fingerprint, platform.time_used)
    setting = models.choose(spec, platform.data, platform.local_rank, splits.labels)
    say(f"method {setting.method}: {setting.why}")
    renderer = renderer_of(models.load_tokenizer(setting), spec, splits.labels, setting.config)
    samples = render_splits(spec, splits, renderer)
    require_embeddings((sample for rows in samples.values() for sample in rows), renderer.tokenizer, setting.config)
    if spec.goal == "trial" and splits.test:
        raise InputError("a trial must not be given test rows", "Give them to the job that trains the best settings.")
    ends = {IGNORED, *renderer.end_ids}  # the end of an answer is supervised even where nothing is before it
    if all(label in ends for sample in samples["train"] for label in sample.labels):
        raise InputError(
            "every label is masked: no training row has a token to learn from",
            "Look at the samples of `ftlaunch check`: the tokenizer makes nothing of the answers.",
        )
    emit("check", **{name: len(rows) for name, rows in splits.named()})
    processes = Processes(platform.rank, platform.world_size, setting.device)
    setting, why = sharding.choose(setting, processes, spec.train, samples["train"])
    return Run(
        platform=platform,
        spec=spec,
        splits=splits,
        samples=samples,
        renderer=renderer,
        evaluator=Evaluator(spec, splits, renderer),
        setting=setting,
        checkpoints=checkpoints,
        outputs=given.outputs,
        row_files=given.row_files,
        stop=stop,
        processes=processes,
        why=why,
        studio=Studio(platform),
    )


def _require_space(job: Run, base: Any) -> None:
    """Before anything is trained: room for the adapter in the output, and for its checkpoints."""
    train = job.spec.train
    adapter = models.adapter_bytes(base, train.rank, train.modules_to_save, encoder=job.setting.encoder)
    # A checkpoint holds the adapter, the best one and two moments of each weight; two are kept while one is written.
    require_space({job.platform.output: adapter, job.platform.checkpoints: 3 * 4 * adapter})


def _baselines(job: Run, base: Any, only: bool) -> tuple[Verdict | None, float | None]:
    """The verdict, where the baselines end the job, and when the training has to end."""
    if job.spec.task.type == "classification":
        job.evaluate("classical", job.evaluator.classical)
    if job.setting.encoder:
        say("no zero-shot or few-shot: an encoder has no answer before its head is trained")
        seconds = job.evaluator.seconds_of(base)
    else:
        job.evaluate("zero_shot", lambda: job.evaluator.zero_shot(base))
        job.evaluate("few_shot", lambda: job.evaluator.few_shot(base))
        seconds = job.evaluations["zero_shot"].seconds
    early = not_needed(job.evaluations, job.spec) or (_untuned(job) if only else None)
    reserve = _RESERVE * seconds + 2 * job.timings["load"] + 10
    return early, None if job.platform.deadline is None else job.platform.deadline - reserve


def _forgetting(job: Run, model: Any, when: str) -> float | None:
    if not job.spec.evaluate.forgetting or job.setting.encoder:  # an encoder foretells no text
        return None
    known = job.kept(lambda: job.checkpoints.number(f"forgetting-{when}"))
    if known is None:
        with job.timed("evaluate"):
            known = general_loss(model, job.renderer.tokenizer)
        if job.processes.first:
            job.checkpoints.save_number(f"forgetting-{when}", known)
    return known


def _initial(job: Run) -> Path:
    return job.platform.checkpoints / "initial"


def _train(job: Run, base: Any, end: float | None) -> tuple[Progress, Trainer]:
    settings = job.spec.train
    peak = models.learning_rate(job.spec, job.parameters, encoder=job.setting.encoder)
    pad = models.padding(job.renderer.tokenizer, job.setting.config)
    with job.timed("load"):
        model = models.add_adapter(base, job.spec, encoder=job.setting.encoder)
        if settings.variant == "pissa" and job.processes.first:
            models.save_initial(model, _initial(job))
    with job.timed("probe"):
        trainer = Trainer(model, job.samples["train"], job.setting, settings, peak, pad, job.processes)
        progress = trainer.restore(job.checkpoints)
    if progress.resumed_from is not None:
        say(f"going on from the checkpoint of step {progress.step}")
    limits = plan_steps(settings, len(job.samples["train"]), end)
    with job.timed("probe"):
        trainer.probe()
    with job.timed("train"), _reporting(job, progress) as report:
        hooks = Hooks(
            checkpoints=job.checkpoints,
            validate=lambda model: _validate(job, model),
            higher_is_better=job.evaluator.metrics[job.spec.task.metric_name].higher_is_better,
            report=report,
            stop=job.stop,
        )
        return trainer.fit(limits, hooks, progress), trainer


def _validate(job: Run, model: Any) -> tuple[str, float, dict[str, float]]:
    with job.timed("validate"):
        return job.with_base(lambda: job.evaluator.validation_metric(model))


@contextlib.contextmanager
def _reporting(job: Run, progress: Progress) -> Iterator[Report]:
    """Where the lines of metrics.jsonl go; those of an earlier start stand there once."""
    if not job.processes.first:
        yield lambda line: None
        return
    job.outputs.metrics(progress.history)
    trackers = Trackers(job.outputs.folder, job.spec, job.spec.train.model_dump(), progress.history)
    job.links = trackers.links

    def report(line: Mapping[str, float]) -> None:
        job.outputs.add_metrics(line)
        trackers.log(line)
        job.studio.log({name: value for name, value in line.items() if "/" in name}, int(line["step"]))

    try:
        yield report
    finally:
        trackers.close()


def _untuned(job: Run) -> Verdict:
    """What is said where only the baselines were asked for."""
    metric = job.spec.task.metric_name
    sign = 1 if job.evaluator.metrics[metric].higher_is_better else -1
    names = ("classical",) if job.setting.encoder else ("zero_shot", "few_shot")
    best = max(names, key=lambda name: sign * job.evaluations[name].metrics[metric])
    value = job.evaluations[best].metrics[metric]
    text = f"Only the baselines were measured; the best one, {best}, has a {metric} of {value:.3f}."
    return Verdict("inconclusive", best, metric, None, None, text)


def _finish(
    job: Run,
    judged: Verdict | None,
    progress: Progress | None,
    trainer: Trainer | None,
    forgetting: dict[str, Any] | None,
) -> None:
    with job.timed("evaluate"):  # the intervals of the slices; `timings` is in the result, and grows there
        told = result(job, judged, progress, trainer, forgetting)
    job.outputs.finish(told, job.spec, environment(job.spec.train.seed, job.row_files))
    if judged is not None:
        emit("verdict", outcome=judged.outcome)
        say(judged.text)
    emit("done", output=str(job.outputs.folder))
