"""How long a job takes: its tokens as the trainer will lay them, their operations, and all that is not training.

For a few hundred rows the start-up, the download of the base model and the evaluations take longer than the training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from launcher.cost import memory
from launcher.cost.counts import Counts
from launcher.cost.places import Place, Range
from launcher.cost.shapes import Shape
from launcher.cost.speed import Speed, Z, per_token
from training_image.spec import Spec

MICRO_TOKENS = {"gpu": 8192, "cpu": 1024}
"""Tokens of a forward pass by default, as in `training_image.train`."""
WHOLE = frozenset({"embed_tokens", "lm_head"})
"""Modules that a job may train whole and whose size is known; norms are too small to count."""
GENERATION_ROWS = 200
"""Validation rows whose answers are generated for the early stop (`training_image.evaluate`)."""
BATCH = 32
"""Answers that are generated together; the trainer takes what its cache holds."""
STEP_SECONDS = 0.0013
"""A layer's part of a decoding step where its kernels' start rules: transformers' generate, a rule of thumb."""
EVALUATION_SPREAD = math.log(1.6)
LOAD_SPEED = 4e8
"""Bytes of 16-bit weights a second that are read and quantised."""
LINK = 1e10
"""Bytes a second that GPUs of one machine send each other without NVLink; an assumption."""
LENGTH_SPREAD = 1.25
"""How far a range of model and data transfers reaches either way."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a job has to compute; tokens as they are processed, what rows share counted once a pass."""

    train_tokens: float
    """Of all steps, in the process that has the most of them."""
    steps: int
    passes: int
    """Forward passes of a step."""
    tokens: int
    """Of one forward pass."""
    supervised: int
    """Supervised positions of one forward pass."""
    longest: int
    span: float
    """Tokens that a token's attention is computed over."""
    forward_tokens: float
    """Of all evaluations and validations."""
    generated: float
    """Decoding steps of all generations (answers are generated in batches)."""
    spread: float
    """Standard deviation of the logarithm of the token counts."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of a job at one place."""

    train: Range
    overhead: Range
    """Billed, but not training: start, model, evaluations, upload."""
    wait: Range
    """Unbilled."""

    @property
    def billed(self) -> Range:
        """Training and overhead together."""
        return together(self.train, self.overhead)


def work(spec: Spec, counts: Counts, device: str, baselines: bool = True, processes: int = 1) -> Work:
    """The work of a job on a ``gpu`` or ``cpu``. ``baselines``: whether it is evaluated at all (the trainer does).

    ``processes`` deal the rows of a step out among each other, as evenly as whole rows go; the first one evaluates.
    """
    train, settings = counts.splits["train"], spec.train
    rows = max(1, train.rows)
    mean, answers = train.tokens / rows, train.answers / rows
    batch = math.ceil(min(settings.batch_size, rows) / processes)  # of one process
    per_epoch = math.ceil(rows / settings.batch_size)
    steps = max(1, math.ceil(settings.epochs * per_epoch))
    if settings.max_steps is not None:
        steps = min(steps, settings.max_steps)
    if spec.goal == "screen":
        steps = 0
    most = settings.micro_batch_tokens or MICRO_TOKENS[device]
    shared = min(counts.shared, int(mean) - 1) if settings.batching != "padded" else 0
    if settings.batching == "padded":
        step_tokens = batch * (mean + train.longest) / 2  # rows of like length lie together
    else:
        step_tokens = batch * mean - shared * (batch - 1)
    passes = max(1, math.ceil(step_tokens / most))
    tokens = max(1, round(step_tokens / passes + (shared if passes > 1 else 0)))
    forward, generated = _evaluations(spec, counts, steps / per_epoch) if baselines else (0.0, 0.0)
    return Work(
        train_tokens=float(steps * passes * tokens),
        steps=steps,
        passes=passes,
        tokens=tokens,
        supervised=max(1, round(batch * answers / passes)),
        longest=max(1, train.longest),
        span=tokens if settings.batching != "padded" else mean / 2,
        forward_tokens=forward,
        generated=generated,
        spread=counts.spread,
    )


def _evaluations(spec: Spec, counts: Counts, epochs: float) -> tuple[float, float]:
    """Forward tokens and decoding steps of zero-shot, few-shot, the tuned model and the validations on the way."""
    test, validation = counts.splits["test"], counts.splits["validation"]
    times = {"tune": 3, "trial": 0, "screen": 2}[spec.goal]  # a trial has no baseline and no test row
    if spec.goal == "screen":
        test, epochs = validation, 0.0
    classifies = counts.labels > 0
    labels = counts.label_tokens if classifies else 0

    def tokens(rows: int, whole: int) -> float:
        return max(0, whole - counts.shared * rows) + rows * labels

    once = tokens(test.rows, test.tokens) + (tokens(validation.rows, validation.tokens) if classifies else 0)
    validations = epochs * spec.train.evaluations_per_epoch * tokens(validation.rows, validation.tokens)
    if classifies or spec.task.type == "completion":
        return times * once + validations, 0.0
    answer = min(spec.task.max_new_tokens, 2 * max(1, test.answers // max(1, test.rows)))
    steps: float = times * math.ceil(test.rows / BATCH) * answer
    on_the_way = min(validation.rows, GENERATION_ROWS)
    steps += epochs * spec.train.evaluations_per_epoch * math.ceil(on_the_way / BATCH) * answer
    return times * once + validations, steps


def duration(shape: Shape, todo: Work, setup: memory.Setup, speed: Speed, place: Place, device: str) -> Duration:
    """How long the work takes: ranges hold in nine of ten cases, as far as their sources go.

    A sharded base is gathered twice in a pass, and nothing is counted on that happening beside the computing.
    """
    attention = 8.0 * shape.layers * shape.queries * todo.span * (1.0 if setup.checkpointing else 2 / 3)
    operations = todo.train_tokens * (per_token(weights_met(shape, setup), setup.checkpointing) + attention)
    spread = math.hypot(speed.spread, todo.spread)
    passes = todo.train_tokens / setup.tokens
    gathering = 2 * passes * memory.gathered(shape, setup) / LINK
    train = log_range(operations / speed.flops + gathering, spread)
    forward = todo.forward_tokens * 2.0 * shape.linear / speed.flops
    every = shape.linear + shape.head  # a decoding step asks the whole vocabulary
    step = shape.layers * STEP_SECONDS if device == "gpu" else BATCH * 2.0 * every / speed.flops
    evaluation = log_range(forward + todo.generated * step, math.hypot(spread, EVALUATION_SPREAD))
    weights = 2.0 * shape.parameters
    transfer = (weights / place.hub if place.hub else 0.0) + weights / LOAD_SPEED
    moved = (transfer / LENGTH_SPREAD, transfer, transfer * LENGTH_SPREAD)
    return Duration(train, together(evaluation, moved, place.around), place.wait)


def weights_met(shape: Shape, setup: memory.Setup) -> float:
    """Weights that a trained token is multiplied with: the trainer asks the head at supervised positions alone."""
    return shape.linear + shape.head * min(1.0, setup.supervised / setup.tokens)


def log_range(median: float, spread: float) -> Range:
    """The range of a log-normal quantity."""
    factor = math.exp(Z * spread)
    return median / factor, median, median * factor


def setup_for(spec: Spec, shape: Shape, todo: Work, quantised: bool, device: str) -> memory.Setup:
    """How the trainer sets itself up for this work (`training_image.train`)."""
    half = device == "gpu"
    optimizer = spec.train.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_8bit" if half else "adamw"
    return memory.Setup(
        tokens=todo.tokens,
        supervised=todo.supervised,
        rank=spec.train.rank,
        dropout=spec.train.dropout > 0,
        whole=shape.vocabulary * shape.hidden * len(WHOLE.intersection(spec.train.modules_to_save)),
        weight_bytes=(memory.NF4 if quantised else 2.0) if half else 4.0,
        compute_bytes=2 if half else 4,
        embedding_bytes=2 if half else 4,
        optimizer_bytes=memory.OPTIMIZER[optimizer],
        checkpointing=spec.train.checkpointing == "on",
        shared=spec.train.batching != "padded" and spec.model.attention in ("auto", "sdpa", "eager"),
    )


def together(*parts: Range) -> Range:
    """The sum of parts that vary apart: their deviations add by squares."""
    expected = sum(part[1] for part in parts)
    low = math.sqrt(sum((part[1] - part[0]) ** 2 for part in parts))
    high = math.sqrt(sum((part[2] - part[1]) ** 2 for part in parts))
    return max(0.0, expected - low), expected, expected + high
