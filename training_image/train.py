"""The training loop.

A loop of our own on torch, not transformers' `Trainer`: an optimizer step here is a set of rows laid into as many
micro-batches as memory asks for, its loss is the mean over the supervised tokens of the whole step over all processes
(a mean of means was 27 % off), a start goes on at any step with the trajectory unchanged, and a stop is heard between
two micro-batches. `Trainer` has a fixed number of micro-batches a step, pads, keeps all logits, and writes checkpoints
that a kill can leave half-written; so much of it would be replaced that the loop is the smaller part. Everything below
the loop is the libraries': peft, bitsandbytes' optimizers, torch's scaler, autocast and checkpointing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer
from torch import Tensor

from training_image.attention import kernel_here
from training_image.batches import (
    Layout,
    MicroBatch,
    micro_batches,
    part_of_process,
    step_order,
    supervised_tokens,
    token_loss,
)
from training_image.checkpoints import Checkpoints, Progress, adapter_state, load_adapter_state
from training_image.data.examples import Sample
from training_image.encoder import label_loss
from training_image.errors import Diverged, InputError, Stopped, is_out_of_memory
from training_image.isolation import SAID, choose_layout, takes_chunks
from training_image.memory import Probe, Way, heaviest, moments_bytes, too_little, ways
from training_image.model import Setting
from training_image.platform import StopSignal
from training_image.processes import Processes
from training_image.progress import emit_mapping, say
from training_image.sharding import as_many
from training_image.spec import Train

Validate = Callable[[Any], tuple[str, float, dict[str, float]]]
"""Name and value of the task metric on the validation rows, and lines for the curves; no curves: no rows."""
Report = Callable[[Mapping[str, float]], None]

_MAX_GRAD_NORM = 1.0
"""Gradients are clipped to this norm (QLoRA, Dettmers 2023, took 0.3 to 1.0)."""
_LORAPLUS_RATIO = 16.0
"""How much faster B learns than A in LoRA+ (Hayou 2024)."""
_PASS_TOKENS = {"cuda": 8192, "cpu": 1024}
"""Tokens of the largest micro-batch: from there on the device is busy, and dequantising costs little."""
_HINT = "Lower train.learning_rate to a third, and look for broken rows with `ftlaunch check`."


@dataclass(frozen=True, slots=True)
class Limits:
    """When to validate and to end."""

    steps: int
    steps_per_epoch: int
    validate_every: int
    deadline: float | None
    """Unix seconds at which the training has to end, the final evaluation's time already taken off."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop needs of the job around it."""

    checkpoints: Checkpoints
    validate: Validate
    higher_is_better: bool
    report: Report
    """Takes each line of metrics.jsonl."""
    stop: StopSignal


def plan_steps(settings: Train, rows: int, deadline: float | None) -> Limits:
    """Number of steps, by epochs or ``max_steps``."""
    per_epoch = max(1, math.ceil(rows / settings.batch_size))
    steps = max(1, math.ceil(settings.epochs * per_epoch))
    if settings.max_steps is not None:
        steps = min(steps, settings.max_steps)
    every = max(1, per_epoch // settings.evaluations_per_epoch)
    return Limits(steps, per_epoch, every, deadline)


def rate(step: int, steps: int, peak: float, settings: Train) -> float:
    """Learning rate of a step (from 0): linear warm-up, then the schedule. A function of the step alone."""
    warm = math.ceil(settings.warmup * steps)
    if step < warm:
        return peak * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    if settings.scheduler == "constant":
        return peak
    return peak * (1 - done if settings.scheduler == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


class Trainer:
    """Trains the adapter of one model on one set of samples."""

    def __init__(
        self,
        model: Any,
        samples: Sequence[Sample],
        setting: Setting,
        settings: Train,
        peak_rate: float,
        pad: int,
        processes: Processes | None = None,
    ) -> None:
        """``peak_rate``: the resolved learning rate. ``pad``: a token id for padding.

        Raises InputError where ``train.batching: packed`` is asked of a model that does not keep packed rows apart.
        """
        self.model, self.samples, self.setting, self.settings = model, list(samples), setting, settings
        self.peak_rate, self.pad, self.processes = peak_rate, pad, processes or Processes()
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        auto = "paged_adamw_8bit" if setting.device.type == "cuda" else "adamw"
        self.optimizer_name = auto if settings.optimizer == "auto" else settings.optimizer
        self.optimizer = self._optimizer()
        self.scaler = torch.amp.GradScaler(setting.device.type, enabled=setting.dtype == torch.float16)
        self.layout = self._choose_layout()
        kernel = kernel_here(setting.device, setting.dtype) if self.layout == "ragged" else None
        self.attention = setting.attention if kernel is None else f"{setting.attention}, rows by {kernel}"
        self.chunk = None if setting.encoder else takes_chunks(model, self.samples)
        self.longest = max(len(sample.input_ids) for sample in self.samples)
        most, device = settings.micro_batch_tokens or _PASS_TOKENS[setting.device.type], setting.device.type
        self.ways = ways(most, self.longest, settings.checkpointing, device)
        self.checkpointing = False
        self.probed: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self._take_way()

    def restore(self, checkpoints: Checkpoints) -> Progress:
        """Go back to the last checkpoint; a fresh Progress where there is none."""
        found = self.processes.from_first(checkpoints.load)
        if found is None:
            return Progress()
        load_adapter_state(self.model, found.adapter)
        self.optimizer.load_state_dict(found.optimizer)
        self.scaler.load_state_dict(found.scaler or self.scaler.state_dict())  # none: the steps before were not in fp16
        self.best = found.best
        found.progress.resumed_from = found.progress.step
        return found.progress

    def probe(self) -> None:
        """Choose the fastest way whose largest micro-batch fits, by running it on the longest rows.

        Raises OutOfMemory where not even the longest row alone fits.
        """
        weights = sum(weight.numel() for weight in self.parameters)
        there = bool(self.optimizer.state)
        together = self.processes if self.setting.sharded else None
        probe = Probe(self.setting.device, 0 if there else moments_bytes(self.optimizer_name, weights), together)
        self.probed = probe.tried
        alone = heaviest(self.samples, 1, 1, self.layout, self.pad)
        rows = math.ceil(self.settings.batch_size / self.processes.size)
        while True:
            batch = heaviest(self.samples, rows, self.way.tokens, self.layout, self.pad)
            if probe.fits(self.way, batch, alone, self._try):
                return
            self._next_way()

    def fit(self, limits: Limits, hooks: Hooks, progress: Progress) -> Progress:
        """Train to the end; the best adapter is in the model then.

        Raises Stopped after a save, Diverged, OutOfMemory.
        """
        with hooks.stop.held():
            try:
                self._loop(limits, hooks, progress)
            except Stopped:
                self.save(hooks.checkpoints, progress)
                raise
        if self.best is not None:
            load_adapter_state(self.model, self.best)
        return progress

    def resolved(self) -> dict[str, Any]:
        """What ``auto`` and null of the job file have become."""
        return {
            "optimizer": self.optimizer_name,
            "micro_batch_tokens": self.way.tokens,
            "batching": "padded" if self.layout == "padded" else "packed",
            "checkpointing": "on" if self.checkpointing else "off",
        }

    def unload(self) -> Any:
        """Take the adapter off; gives the base as it was. The trainer lets go of it all, and trains no more."""
        if self.checkpointing:
            self.model.gradient_checkpointing_disable()
        base = self.model.unload()
        del self.model, self.parameters, self.optimizer
        return base

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        """Save the state between two steps."""
        if self.processes.first:
            checkpoints.save(self.model, self.optimizer, self.scaler, progress, self.best)

    def _loop(self, limits: Limits, hooks: Hooks, progress: Progress) -> None:
        saved, took = time.monotonic(), 0.0
        while progress.stopped_by is None:
            if self._due(progress, limits, took):
                self._validate(progress, limits, hooks)
            progress.stopped_by = self._end(progress, limits, took)
            late = time.monotonic() - saved >= 60 * self.settings.checkpoint_minutes
            every = self.settings.checkpoint_steps
            if late or progress.stopped_by or (every and progress.step and progress.step % every == 0):
                self.save(hooks.checkpoints, progress)
                saved = time.monotonic()
            if progress.stopped_by:
                return
            if self.processes.any(bool(hooks.stop)):
                raise Stopped(f"stopped after step {progress.step} of {limits.steps}; a next start goes on from there")
            start = time.monotonic()
            line = self._step(progress, limits, hooks.stop)
            took = time.monotonic() - start
            progress.seconds += took
            progress.history.append(line)
            hooks.report(line)
            _watch(progress.history, scaled=self.scaler.is_enabled())
            self._show(line, progress, limits)

    def _due(self, progress: Progress, limits: Limits, took: float) -> bool:
        """Whether to validate now; a start that goes on makes up for a validation that the stop cut off."""
        step = progress.step
        if step == 0 or step == progress.validated:
            return False
        late = limits.deadline is not None and time.time() + progress.validation_seconds >= limits.deadline
        return (step >= limits.steps or step % limits.validate_every == 0) and not self.processes.any(late)

    def _end(self, progress: Progress, limits: Limits, took: float) -> str | None:
        if progress.step >= limits.steps:
            return "max_steps" if limits.steps == self.settings.max_steps else "epochs"
        if self.settings.patience and progress.waited >= self.settings.patience:
            return "patience"
        late = limits.deadline is not None and time.time() + took >= limits.deadline
        return "deadline" if self.processes.any(late) else None

    def _validate(self, progress: Progress, limits: Limits, hooks: Hooks) -> None:
        start = time.monotonic()
        with hooks.stop.at_once():
            _, value, curves = hooks.validate(self.model)
        progress.validation_seconds = time.monotonic() - start
        progress.validated = progress.step
        if not curves:
            return
        line: dict[str, float] = {"step": progress.step, **self._place(progress, limits), **curves}
        progress.history.append(line)
        hooks.report(line)
        emit_mapping("train", {"step": progress.step, **curves})
        value = self.processes.of_first(value)  # all decide alike
        sign = 1 if hooks.higher_is_better else -1
        if progress.best_value is None or sign * value > sign * progress.best_value:
            progress.best_step, progress.best_value, progress.waited = progress.step, value, 0
            self.best = adapter_state(self.model)
        else:
            progress.waited += 1

    def _step(self, progress: Progress, limits: Limits, stop: StopSignal) -> dict[str, float]:
        epoch, place = divmod(progress.step, limits.steps_per_epoch)
        size = self.settings.batch_size
        order = step_order(len(self.samples), epoch, self.settings.seed)[place * size : (place + 1) * size]
        rows = [self.samples[index] for index in order]
        supervised = supervised_tokens(rows)
        now = rate(progress.step, limits.steps, self.peak_rate, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = now * group["factor"]
        # Dropout is a function of the step, so that a start that goes on needs no random state.
        torch.manual_seed(hash((self.settings.seed, progress.step, self.processes.rank)))
        loss = self.processes.sum(self._gradients(rows, supervised, stop))
        self.processes.sum_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)  # of the sum: all processes find the same overflow, or none
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, _MAX_GRAD_NORM))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        progress.step += 1
        progress.tokens += sum(len(row.input_ids) for row in rows)
        progress.supervised_tokens += supervised
        shown = {"train/loss": loss, "train/grad_norm": norm, "train/learning_rate": now}
        return {"step": progress.step, **self._place(progress, limits), **shown}

    def _gradients(self, rows: Sequence[Sample], supervised: int, stop: StopSignal) -> float:
        """This process's part of the step's mean loss, its gradients accumulated.

        After an out-of-memory the step is begun again, with gradient checkpointing or in smaller micro-batches.
        """
        own = part_of_process(rows, self.processes.rank, self.processes.size)
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            self.model.train()
            total = torch.zeros((), dtype=torch.float64, device=self.setting.device)
            try:
                batches = micro_batches(own, self.way.tokens, self.layout, self.pad)
                if self.setting.sharded:
                    batches = as_many(batches, rows, self.pad, self.processes)
                for batch in batches:
                    if stop and self.processes.alone:
                        raise Stopped("stopped inside a step; a next start goes on from the step before")
                    total += self._backward(batch.to(self.setting.device), supervised)
                return float(total)  # a GPU is waited for once a step, not after each micro-batch
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.setting.sharded:
                    raise
            # Not inside the except, where the error still holds the pass that failed.
            torch.cuda.empty_cache()
            self._next_way()
            say(f"out of memory: going on with {self.way}, same step")

    def _try(self, batch: MicroBatch) -> None:
        self.model.train()
        try:
            self._backward(batch.to(self.setting.device), max(1, len(batch.targets)))
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def _next_way(self) -> None:
        """Raises OutOfMemory where there is nothing left to give up."""
        self.ways.pop(0)
        if not self.ways:
            raise too_little(self.longest, self.settings.checkpointing)
        self._take_way()

    def _take_way(self) -> None:
        self.way: Way = self.ways[0]
        if self.way.checkpointing and not self.checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self.model.enable_input_require_grads()
            self.checkpointing = True

    def _backward(self, batch: MicroBatch, supervised: int) -> Tensor:
        mixed = self.setting.dtype != torch.float32
        with torch.autocast(self.setting.device.type, self.setting.dtype, enabled=mixed):
            total = label_loss(self.model, batch) if self.setting.encoder else token_loss(self.model, batch, self.chunk)
            loss = total / supervised
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _optimizer(self) -> torch.optim.Optimizer:
        from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

        kinds: dict[str, Any] = {
            "adamw": torch.optim.AdamW,
            "adamw_8bit": AdamW8bit,
            "paged_adamw_8bit": PagedAdamW8bit,
        }
        kind, options = kinds[self.optimizer_name], {"lr": self.peak_rate, "weight_decay": 0.0}
        made: torch.optim.Optimizer
        if self.settings.variant == "loraplus":
            made = create_loraplus_optimizer(self.model, kind, loraplus_lr_ratio=_LORAPLUS_RATIO, **options)
        else:
            made = kind(self.parameters, **options)
        for group in made.param_groups:
            group["factor"] = group["lr"] / self.peak_rate
        return made

    def _choose_layout(self) -> Layout:
        if self.settings.batching == "padded":
            say("rows are padded, as the job says")
            return "padded"
        ragged = self.setting.any_kernel
        layout: Layout = "padded" if self.setting.encoder else choose_layout(self.model, self.samples, ragged=ragged)
        if self.settings.batching == "packed" and layout == "padded":
            why = "train.batching: packed, but this model's attention lets packed rows see each other"
            raise InputError(why, hint="Use train.batching: auto, or padded.")
        say(SAID[layout])
        return layout

    def _place(self, progress: Progress, limits: Limits) -> dict[str, float]:
        return {"epoch": round(progress.step / limits.steps_per_epoch, 4), "time": round(time.time(), 3)}

    def _show(self, line: Mapping[str, float], progress: Progress, limits: Limits) -> None:
        left = progress.seconds / progress.step * (limits.steps - progress.step)
        shown = {"step": progress.step, "steps": limits.steps, "epoch": line["epoch"], "train/loss": line["train/loss"]}
        curves = {name: line[name] for name in ("train/grad_norm", "train/learning_rate")}
        emit_mapping("train", {**shown, **curves, "seconds_left": round(left)})


def _watch(history: Sequence[Mapping[str, float]], *, scaled: bool) -> None:
    """Raise Diverged for a loss that is no number, or far above where it began.

    ``scaled``: a scaler skips steps whose gradient overflows, so an infinite norm is no sign then.
    """
    lines = [line for line in history if "train/loss" in line]
    losses, last = [line["train/loss"] for line in lines], lines[-1]
    for name in ("train/loss", *(() if scaled else ("train/grad_norm",))):
        if not math.isfinite(last[name]):
            raise Diverged(f"{name} is {last[name]} at step {last['step']:.0f}", _HINT)
    if len(losses) >= 10:
        first, recent = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        if recent > 3 * first + 3:
            raise Diverged(f"the loss rose from {first:.2f} to {recent:.2f} by step {last['step']:.0f}", _HINT)
