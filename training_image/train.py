"""The training loop.

A loop of our own on torch, not transformers' `Trainer`: an optimizer step here is a set of rows laid into as many
packed micro-batches as memory asks for, its loss is the mean over the supervised tokens of the whole step (a mean of
means was 27 % off), and a start goes on at any step with the trajectory unchanged. `Trainer` has a fixed number of
micro-batches a step, and pads and keeps all logits. Everything below the loop is the libraries': peft, bitsandbytes'
optimizers, torch's scaler and autocast.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training_image.batches import MicroBatch, isolates, micro_batches, step_order, supervised_tokens, token_loss
from training_image.checkpoints import Checkpoints, Progress
from training_image.data.examples import Sample
from training_image.errors import Diverged, InputError, OutOfMemory, Stopped
from training_image.model import Setting
from training_image.platform import StopSignal
from training_image.progress import emit_mapping, say
from training_image.spec import Train

Validate = Callable[[Any], tuple[str, float, dict[str, float]]]
Report = Callable[[dict[str, float]], None]

_SMALLEST = 64
"""Tokens of the smallest micro-batch that is tried after an out-of-memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to validate, to save and to end."""

    steps: int
    steps_per_epoch: int
    validate_every: int
    deadline: float | None
    """Unix seconds at which the training has to end, the final evaluation's time already taken off."""


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
    ) -> None:
        """``peak_rate``: the resolved learning rate. ``pad``: a token id for padding."""
        self.model, self.samples, self.setting, self.settings = model, list(samples), setting, settings
        self.peak_rate, self.pad = peak_rate, pad
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = self._optimizer()
        self.scaler = torch.amp.GradScaler(setting.device.type, enabled=setting.dtype == torch.float16)
        self.packed = self._packs()
        self.micro_tokens = settings.micro_batch_tokens or (512 if setting.device.type == "cpu" else 8192)
        if settings.checkpointing == "on":
            self._checkpoint_gradients()

    def fit(
        self,
        limits: Limits,
        checkpoints: Checkpoints,
        validate: tuple[Validate, bool],
        report: Report,
        stop: StopSignal,
        progress: Progress,
    ) -> Progress:
        """Train to the end; the best adapter is in the model then.

        ``validate``: the task metric on the validation rows, and whether higher is better. ``report`` takes each line
        of metrics.jsonl. Raises Stopped after a save, Diverged, OutOfMemory.
        """
        saved = began = time.monotonic()
        before = progress.seconds
        while progress.stopped_by is None:
            line = self._step(progress, limits)
            progress.seconds = before + time.monotonic() - began
            report(line)
            progress.history.append(line)
            _watch(progress.history)
            self._show(line, progress, limits)
            ended = progress.step >= limits.steps
            if ended or progress.step % limits.validate_every == 0:
                self._validate(progress, checkpoints, validate, report)
            progress.stopped_by = self._end(progress, limits, ended)
            due = time.monotonic() - saved >= 60 * self.settings.checkpoint_minutes
            every = self.settings.checkpoint_steps
            if stop or due or progress.stopped_by or (every and progress.step % every == 0):
                checkpoints.save(self.model, self.optimizer, self.scaler, progress)
                saved = time.monotonic()
            if stop and not progress.stopped_by:
                raise Stopped(f"stopped after step {progress.step} of {limits.steps}; a next start goes on from there")
        checkpoints.restore_best(self.model)
        return progress

    def _end(self, progress: Progress, limits: Limits, ended: bool) -> str | None:
        if ended:
            return "max_steps" if limits.steps == self.settings.max_steps else "epochs"
        if self.settings.patience and progress.waited >= self.settings.patience:
            return "patience"
        if limits.deadline is not None and time.time() >= limits.deadline:
            return "deadline"
        return None

    def _validate(
        self, progress: Progress, checkpoints: Checkpoints, validate: tuple[Validate, bool], report: Report
    ) -> None:
        _, value, curves = validate[0](self.model)
        if not curves:
            return
        line: dict[str, float] = {"step": progress.step, **self._place(progress), **curves}
        report(line)
        progress.history.append(line)
        emit_mapping("train", {"step": progress.step, **curves})
        sign = 1 if validate[1] else -1
        if progress.best_value is None or sign * value > sign * progress.best_value:
            progress.best_step, progress.best_value, progress.waited = progress.step, value, 0
            checkpoints.save_best(self.model)
        else:
            progress.waited += 1

    def _step(self, progress: Progress, limits: Limits) -> dict[str, float]:
        epoch, place = divmod(progress.step, limits.steps_per_epoch)
        size = self.settings.batch_size
        order = step_order(len(self.samples), epoch, self.settings.seed)[place * size : (place + 1) * size]
        rows = [self.samples[index] for index in order]
        supervised = supervised_tokens(rows)
        now = rate(progress.step, limits.steps, self.peak_rate, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = now
        loss = self._gradients(rows, supervised)
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        progress.step += 1
        progress.tokens += sum(len(row.input_ids) for row in rows)
        progress.supervised_tokens += supervised
        shown = {"train/loss": loss, "train/grad_norm": norm, "train/learning_rate": now}
        return {"step": progress.step, **self._place(progress, limits), **shown}

    def _gradients(self, rows: Sequence[Sample], supervised: int) -> float:
        """Mean loss of the step, its gradients accumulated. After an out-of-memory, again in smaller micro-batches."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            self.model.train()
            total = 0.0
            try:
                for batch in micro_batches(rows, self.micro_tokens, self.packed, self.pad):
                    total += self._backward(batch.to(self.setting.device), supervised)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                if self.micro_tokens <= _SMALLEST:
                    hint = (
                        "Take a smaller model, train.method: qlora, train.checkpointing: on or a lower data.max_length."
                    )
                    raise OutOfMemory("one row does not fit into the device's memory", hint) from error
                self.micro_tokens //= 2
                say(f"out of memory: going on with micro-batches of {self.micro_tokens} tokens, same step")
                continue
            return total

    def _backward(self, batch: MicroBatch, supervised: int) -> float:
        mixed = self.setting.dtype != torch.float32
        with torch.autocast(self.setting.device.type, self.setting.dtype, enabled=mixed):
            loss = token_loss(self.model, batch) / supervised
        self.scaler.scale(loss).backward()
        return float(loss.detach())

    def _optimizer(self) -> torch.optim.Optimizer:
        name = self.settings.optimizer
        if name == "auto":
            name = "paged_adamw_8bit" if self.setting.device.type == "cuda" else "adamw"
        options: dict[str, Any] = {"lr": self.peak_rate, "weight_decay": self.settings.weight_decay}
        if name == "adamw":
            return torch.optim.AdamW(self.parameters, **options)
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

        kind: dict[str, Any] = {"adamw_8bit": AdamW8bit, "paged_adamw_8bit": PagedAdamW8bit}
        made: torch.optim.Optimizer = kind[name](self.parameters, **options)
        return made

    def _packs(self) -> bool:
        wanted = self.settings.batching
        if wanted == "padded":
            return False
        kept_apart = isolates(self.model, self.samples)
        if wanted == "packed" and not kept_apart:
            raise InputError(
                "train.batching: packed, but this model's attention lets packed rows see each other",
                hint="Use train.batching: auto, or padded.",
            )
        say("rows are packed end to end" if kept_apart else "rows are padded: packed ones would see each other")
        return kept_apart

    def _checkpoint_gradients(self) -> None:
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model.enable_input_require_grads()

    def _place(self, progress: Progress, limits: Limits | None = None) -> dict[str, float]:
        per_epoch = limits.steps_per_epoch if limits else math.ceil(len(self.samples) / self.settings.batch_size)
        return {"epoch": round(progress.step / per_epoch, 4), "time": round(time.time(), 3)}

    def _show(self, line: dict[str, float], progress: Progress, limits: Limits) -> None:
        left = progress.seconds / progress.step * (limits.steps - progress.step)
        shown = {"step": progress.step, "steps": limits.steps, "epoch": line["epoch"], "train/loss": line["train/loss"]}
        emit_mapping(
            "train", {**shown, "train/learning_rate": line["train/learning_rate"], "seconds_left": round(left)}
        )


def _watch(history: Sequence[dict[str, float]]) -> None:
    """Raise Diverged for a loss that is no number, or far above where it began."""
    losses = [line["train/loss"] for line in history if "train/loss" in line]
    hint = "Lower train.learning_rate to a third, and look for broken rows with `ftlaunch check`."
    if not math.isfinite(losses[-1]):
        raise Diverged(f"the loss is {losses[-1]} at step {len(losses)}", hint)
    if len(losses) >= 10:
        first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        if last > 3 * first + 3:
            raise Diverged(f"the loss rose from {first:.2f} to {last:.2f} by step {len(losses)}", hint)
