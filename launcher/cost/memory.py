"""Peak memory of a job on one GPU: the larger of what loading and what training takes, from the model's shape alone.

The sums follow what torch keeps for the gradient in our own trainer (`training_image.train`): a frozen base in NF4 or
in the compute type, embeddings, head and norms in the compute type (nothing is lifted to fp32), a LoRA adapter in fp32
on all linear layers, packed rows with logits at supervised positions only, in chunks of 2^26. Other stacks' habits
(fp32 embeddings, all logits at once) are settings here, so that published measurements can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from launcher.cost.shapes import FOUR_NORMS, NORMED_HEADS, Shape

GIB = 2.0**30
NF4 = 0.5 + 0.127 / 8
"""Bytes a weight in NF4 with double quantisation: 4 bits and 0.127 bits of constants (Dettmers 2023)."""
NF4_SINGLE = 0.5 + 4 / 64
"""The same without double quantisation: one fp32 constant in 64."""
OPTIMIZER = {"adamw": 8.0, "adamw_8bit": 2.06, "paged_adamw_8bit": 2.06}
"""Bytes a trained weight: two moments, in fp32 or in 8 bits with a constant in 256."""
CONTEXT = 0.75 * GIB
"""CUDA's context and its libraries' workspaces, outside of what torch counts. A rule of thumb, not measured by us."""
FRAGMENTS = 1.05
"""What torch's allocator holds over what is in use."""
LOGITS = 2**26
"""Logits that our loss computes at a time (`training_image.isolation`)."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is trained, as far as memory goes."""

    tokens: int
    """Tokens of one forward pass, padding counted."""
    supervised: int
    """Positions that reach the vocabulary."""
    rank: int = 16
    whole: int = 0
    """Weights trained whole beside the adapter."""
    weight_bytes: float = NF4
    """Of a weight of the base's linear layers."""
    compute_bytes: int = 2
    embedding_bytes: int = 2
    adapter_bytes: float = 4
    """Of an adapter's weight, and of its gradient."""
    optimizer_bytes: float = OPTIMIZER["paged_adamw_8bit"]
    checkpointing: bool = False
    shared: bool = True
    """Whether rows are packed behind a shared beginning, and attend one by one."""
    dropout: bool = False
    """Whether the adapter's input is dropped in part, which keeps a copy of it and a mask for each linear layer."""
    logit_bytes: float = 12
    """Of a logit in all its forms: in fp32, its softmax, the gradient (as measured on our loss)."""
    chunk: int | None = LOGITS
    """Logits computed at a time; None: all at once."""
    shards: int = 1
    """GPUs that each keep a part of every layer (`training_image.sharding`)."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes at the worst moment, by part."""

    weights: float
    adapter: float
    """Weights, gradients, moments, and copies in the compute type."""
    kept: float
    """Activations kept from the forward pass."""
    logits: float
    working: float
    """What going back through one layer takes: its activations where they are made again, dequantised weights,
    gradients on the way."""
    loading: float
    """The peak while the base is loaded."""

    @property
    def training(self) -> float:
        """The peak while it is trained; the logits are gone before the way back through the layers begins."""
        return self.weights + self.adapter + self.kept + max(self.logits, self.working)

    @property
    def allocated(self) -> float:
        """What torch counts as allocated."""
        return max(self.loading, self.training)

    @property
    def needed(self) -> float:
        """What the GPU must have, with the allocator's fragments and CUDA's own part."""
        return self.allocated * FRAGMENTS + CONTEXT


def peak(shape: Shape, setup: Setup) -> Peak:
    """The peak of one forward and backward pass."""
    small = (2 * shape.layers + 1) * shape.hidden
    tables = setup.embedding_bytes * shape.embedding
    weights = setup.weight_bytes * shape.linear + tables + setup.compute_bytes * small
    largest = max(inputs * outputs for inputs, outputs in shape.matrices)
    table = shape.vocabulary * shape.hidden
    quantised = setup.weight_bytes < setup.compute_bytes
    away = gathered(shape, setup)
    loading = weights + setup.compute_bytes * max(
        largest if quantised else 0, table if setup.embedding_bytes > 2 else 0
    )
    copies = setup.compute_bytes if setup.compute_bytes < setup.adapter_bytes else 0
    trained = shape.adapter(setup.rank) + setup.whole
    once = layer(shape, setup)
    inputs = setup.compute_bytes * setup.tokens * shape.hidden
    return Peak(
        weights=weights - away,
        adapter=trained * (2 * setup.adapter_bytes + setup.optimizer_bytes + copies),
        kept=shape.layers * (inputs if setup.checkpointing else once) + _once(shape, setup),
        logits=_logits(shape, setup) + (0.0 if shape.tied or setup.shards == 1 else setup.embedding_bytes * table),
        working=(once if setup.checkpointing else 0.0)
        + (2.0 * setup.weight_bytes * shape.linear / shape.layers if setup.shards > 1 else 0.0)
        + (2.0 * setup.compute_bytes * largest if quantised else 0.0)
        + setup.compute_bytes * setup.tokens * 2 * (shape.intermediate + shape.hidden),
        loading=loading if setup.shards == 1 else weights - away,
    )


def gathered(shape: Shape, setup: Setup) -> float:
    """Bytes of the base that other GPUs keep: their parts of the layers and of embeddings that are not tied, but
    nothing of four bits' constants."""
    stays = NF4 - 0.5 if setup.weight_bytes == NF4 else 0.0
    tables = 0 if shape.tied else setup.embedding_bytes * shape.embedding
    return (1 - 1 / setup.shards) * ((setup.weight_bytes - stays) * shape.linear + tables)


def layer(shape: Shape, setup: Setup) -> float:
    """Bytes that one layer keeps for the gradient."""
    c, h, q, k = setup.compute_bytes, shape.hidden, shape.queries, shape.keys
    # Both norms work in fp32 (their input is kept so), and what leaves them feeds the linear layers.
    norms = 2 * (4 + c) * h
    # Row by row, queries and what comes of them are copied, keys and values repeated for every head.
    attention = c * (5 * q if setup.shared else 2 * q + 2 * k) + 4 * shape.heads
    inner = c * (shape.up // shape.intermediate + 2) * shape.intermediate
    low = c * 2 * setup.rank * len(shape.matrices)
    low += sum((c + 1) * inputs for inputs, _ in shape.matrices) if setup.dropout else 0
    if shape.type in NORMED_HEADS:
        norms += 4 * (q + k)
    if shape.type in FOUR_NORMS:
        norms *= 2
    return setup.tokens * (norms + attention + inner + low)


def _once(shape: Shape, setup: Setup) -> float:
    """What is kept beside the layers: rotations, the last norm, the mask."""
    kept = setup.tokens * (8 * shape.head_dim + (4 + setup.compute_bytes) * shape.hidden)
    return kept + (setup.tokens**2 if setup.shared else 0)


def _logits(shape: Shape, setup: Setup) -> float:
    positions = setup.supervised
    if setup.chunk is not None:
        positions = min(positions, max(1, setup.chunk // shape.vocabulary))
    return setup.logit_bytes * positions * shape.vocabulary


def fit(shape: Shape, setup: Setup, usable_gib: float, longest: int, gpus: int = 1) -> tuple[str, Setup, Peak]:
    """``fits``, ``tight`` (below 10 % free) or ``no``, and how the trainer would then run.

    Where the whole base does not fit one of several GPUs, it is sharded over them.
    """
    found = _fit(shape, setup, usable_gib, longest)
    return found if found[0] == "fits" or gpus == 1 else _fit(shape, replace(setup, shards=gpus), usable_gib, longest)


def _fit(shape: Shape, setup: Setup, usable_gib: float, longest: int) -> tuple[str, Setup, Peak]:
    """As `fit`, the base whole or sharded as the setup says.

    The trainer takes the first of these that does not run out of memory: as asked, with gradient checkpointing, with
    micro-batches halved down to 64 tokens or to one row. ``longest``: tokens of the longest row.
    """
    tried = [setup, replace(setup, checkpointing=True)]
    while tried[-1].tokens > max(64, longest):
        last = tried[-1]
        tokens = max(last.tokens // 2, min(longest, last.tokens))
        tried.append(replace(last, tokens=tokens, supervised=max(1, last.supervised * tokens // last.tokens)))
    for share, verdict in ((0.9, "fits"), (1.0, "tight")):
        for each in tried:
            found = peak(shape, each)
            if found.needed <= share * usable_gib * GIB:
                return verdict, each, found
    return "no", tried[-1], peak(shape, tried[-1])
