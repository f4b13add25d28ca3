"""Log-likelihoods of continuations: of every label after every prompt, or of one reference answer after each.

The packed way, for decoders with plain causal attention (sdpa or eager). What all prompts have in common (system turn,
instruction, few-shot examples) is run once and kept as a key-value cache; a batch then lays the rest of many prompts
and their continuations end to end in one sequence, and a mask lets each token see the common prefix, its own prompt
and its own continuation only. Nothing is padded, no cache is copied by row, a prompt is run once however many labels
follow it, and only the needed positions reach the vocabulary (``logits_to_keep``).

The plain way, for all other models: each prompt with each continuation, padded on the right. Before the packed way is
used it is compared with the plain way on two rows of the very request, so that a model that ignores the mask or the
positions is found out instead of believed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from training_image.model import evaluating
from training_image.progress import say

Ids = list[int]

_LOGIT_CELLS = 2**26
"""Most logits of one forward pass (256 MB in fp32)."""


def log_likelihoods(
    model: Any, prompts: Sequence[Ids], continuations: Sequence[Sequence[Ids]], *, batch_tokens: int | None = None
) -> list[list[float]]:
    """Sum of the log-probabilities of each continuation's tokens after its prompt, in nats.

    ``continuations[i]`` are those of ``prompts[i]``; none of either may be empty. ``batch_tokens`` is the size of one
    forward pass, by default 512 on a CPU and 8,192 on an accelerator.
    """
    if not prompts:
        return []
    size = batch_tokens or default_batch_tokens(model)
    with evaluating(model):
        shared = common_prefix(prompts)
        cache = prefix_cache(model, prompts[0][:shared])
        if cache is not None and _agrees(model, prompts, continuations, cache, shared):
            return _packed(model, prompts, continuations, cache, shared, size)
        say("This model's attention does not take packed rows: scoring them one by one, slower.")
        return plain_log_likelihoods(model, prompts, continuations, batch_tokens=size)


def default_batch_tokens(model: Any) -> int:
    """Tokens of one forward pass that keep the device busy without filling it."""
    return 512 if model.device.type == "cpu" else 8192


def common_prefix(prompts: Sequence[Ids]) -> int:
    """Number of leading tokens that all prompts share, leaving each at least one token of its own."""
    low, high = min(prompts), max(prompts)
    shared = next((i for i, (one, two) in enumerate(zip(low, high, strict=False)) if one != two), len(low))
    return min(shared, min(map(len, prompts)) - 1)


def prefix_cache(model: Any, prefix: Ids) -> DynamicCache | None:
    """Keys and values of the prefix ``[1, heads, prefix, width]``; None where attention is not plainly causal.

    Sliding windows, state-space layers and kernels that take no mask of ours (flash, flex) give None.
    """
    cache = DynamicCache(config=model.config.get_text_config())
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    if not plain or model.config._attn_implementation not in ("sdpa", "eager"):
        return None
    if prefix:
        model(input_ids=_row(model, prefix), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache if cache.get_seq_length() == len(prefix) else None


def copy_cache(cache: DynamicCache) -> DynamicCache:
    """A cache that can grow and leaves the first as it is: layers append by concatenation, so tensors are shared."""
    again = copy.copy(cache)
    again.layers = [copy.copy(layer) for layer in cache.layers]
    return again


def plain_log_likelihoods(
    model: Any, prompts: Sequence[Ids], continuations: Sequence[Sequence[Ids]], *, batch_tokens: int = 1024
) -> list[list[float]]:
    """As `log_likelihoods`, each prompt run with each continuation, padded on the right, no cache."""
    pairs = [(row, place) for row, some in enumerate(continuations) for place in range(len(some))]
    pairs.sort(key=lambda pair: len(prompts[pair[0]]) + len(continuations[pair[0]][pair[1]]))
    scores = [[0.0] * len(some) for some in continuations]
    most = _most_positions(model)
    with evaluating(model):
        for batch in _padded_batches(prompts, continuations, pairs, batch_tokens, most):
            found = _plain_batch(model, [(prompts[row], continuations[row][place]) for row, place in batch], most)
            for (row, place), score in zip(batch, found, strict=True):
                scores[row][place] = score
    return scores


def _most_positions(model: Any) -> int:
    """Positions whose logits may exist at a time."""
    return max(1, _LOGIT_CELLS // int(model.config.get_text_config().vocab_size))


def _padded_batches(
    prompts: Sequence[Ids], continuations: Sequence[Sequence[Ids]], pairs: list[tuple[int, int]], size: int, most: int
) -> Iterator[list[tuple[int, int]]]:
    batch: list[tuple[int, int]] = []
    shortest = 0  # prompt of the batch: from its end on logits are needed in all of its rows
    for row, place in pairs:  # from short to long, so the newest is the longest
        length = len(prompts[row]) + len(continuations[row][place])
        shortest = min(shortest, len(prompts[row])) if batch else len(prompts[row])
        if batch and (len(batch) + 1) * max(length / size, (length - shortest) / most) > 1:
            yield batch
            batch, shortest = [], len(prompts[row])
        batch.append((row, place))
    yield batch


def _plain_batch(model: Any, pairs: list[tuple[Ids, Ids]], most: int) -> list[float]:
    """Sums for each pair; a row with more answer than ``most`` positions is run again for each part of it."""
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    start = min(len(prompt) for prompt, _ in pairs) - 1
    ids = torch.zeros((len(pairs), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        mask[row, : len(prompt) + len(answer)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    scores = [0.0] * len(pairs)
    for part in torch.arange(start, length - 1, device=model.device).split(max(1, most // len(pairs))):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=part).logits
        if logits.shape[1] != len(part):  # a model without `logits_to_keep` gives them all
            logits = logits[:, part]
        first, last = int(part[0]), int(part[-1]) + 1
        for row, (prompt, answer) in enumerate(pairs):
            begin, end = max(first, len(prompt) - 1), min(last, len(prompt) + len(answer) - 1)
            if begin < end:
                kept = logits[row, begin - first : end - first].float()
                chosen = kept.gather(-1, ids[row, begin + 1 : end + 1, None])
                scores[row] += float((chosen[:, 0] - kept.logsumexp(-1)).sum())
    return scores


def _agrees(
    model: Any, prompts: Sequence[Ids], continuations: Sequence[Sequence[Ids]], cache: DynamicCache, shared: int
) -> bool:
    """Whether the packed way equals the plain way, on the two shortest rows, two continuations each."""
    rows = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))[:2]
    few = [prompts[row] for row in rows]
    some = [list(continuations[row][:2]) for row in rows]
    try:
        packed = _packed(model, few, some, cache, shared, sum(map(len, few)) + 2 * max(map(len, some[0] + some[-1])))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError):  # a model of its own mind about masks
        return False
    plain = plain_log_likelihoods(model, few, some)
    # fp32 agrees to 1e-5 a token; 16-bit kernels differ by some hundredths between any two ways of batching.
    allowed = 1e-3 if model.dtype == torch.float32 else 0.1
    tokens = max(len(answer) for answers in some for answer in answers)
    pairs = zip(chain(*packed), chain(*plain), strict=True)
    return all(abs(one - other) <= allowed * tokens for one, other in pairs)


def _packed(
    model: Any,
    prompts: Sequence[Ids],
    continuations: Sequence[Sequence[Ids]],
    cache: DynamicCache,
    shared: int,
    size: int,
) -> list[list[float]]:
    kept_most = _most_positions(model)
    costs = [_cost(prompt, some, shared) for prompt, some in zip(prompts, continuations, strict=True)]
    scores: list[list[float]] = [[] for _ in prompts]
    # Longest first: if memory does not suffice, that is known at once.
    rows = sorted(range(len(prompts)), key=lambda row: -costs[row][0])
    while rows:
        batch: list[int] = []
        tokens = kept = 0
        for row in rows:
            tokens, kept = tokens + costs[row][0], kept + costs[row][1]
            if batch and (tokens > size or kept > kept_most):
                break
            batch.append(row)
        rows = rows[len(batch) :]
        found = _packed_batch(model, [prompts[r][shared:] for r in batch], [continuations[r] for r in batch], cache)
        for row, values in zip(batch, found, strict=True):
            scores[row] = values
    return scores


def _cost(prompt: Ids, continuations: Sequence[Ids], shared: int) -> tuple[int, int]:
    """Tokens to run and positions whose logits are needed."""
    inner = sum(len(continuation) - 1 for continuation in continuations)
    return len(prompt) - shared + inner, 1 + inner


def _packed_batch(
    model: Any, rests: Sequence[Ids], continuations: Sequence[Sequence[Ids]], cache: DynamicCache
) -> list[list[float]]:
    before = cache.get_seq_length()
    ids: list[int] = []
    positions: list[int] = []
    owner: list[int] = []  # the row of a token
    branch: list[int] = []  # the continuation of a token, -1 in the prompt
    kept: list[int] = []  # positions whose logits are needed
    targets: list[tuple[int, int, int]] = []  # (index into kept, token, index into the flat scores)
    flat = 0
    for row, (rest, some) in enumerate(zip(rests, continuations, strict=True)):
        ids += rest
        positions += range(before, before + len(rest))
        branch += [-1] * len(rest)
        first = len(kept)
        kept.append(len(ids) - 1)
        for place, continuation in enumerate(some):
            inner = continuation[:-1]  # nothing is predicted from the last token
            sources = [first, *range(len(kept), len(kept) + len(inner))]
            targets += [(source, token, flat) for source, token in zip(sources, continuation, strict=True)]
            kept += range(len(ids), len(ids) + len(inner))
            ids += inner
            positions += range(before + len(rest), before + len(rest) + len(inner))
            branch += [place] * len(inner)
            flat += 1
        owner += [row] * (len(ids) - len(owner))
    logits = _forward(model, ids, positions, _mask(model, owner, branch, before), kept, cache)
    return _gather(logits, targets, [len(some) for some in continuations])


def _mask(model: Any, owner: list[int], branch: list[int], before: int) -> Tensor:
    """Who sees whom, ``[1, 1, tokens, before + tokens]``: boolean for sdpa, added to the scores for eager."""
    rows, branches = torch.tensor(owner), torch.tensor(branch)
    same = rows[:, None] == rows[None, :]
    seen = (branches[None, :] == -1) | (branches[:, None] == branches[None, :])
    own = (same & seen).tril()
    allowed = torch.cat([torch.ones(len(owner), before, dtype=torch.bool), own], dim=1)[None, None].to(model.device)
    if model.config._attn_implementation == "sdpa":
        return allowed
    lowest = torch.finfo(model.dtype).min
    return torch.zeros(allowed.shape, dtype=model.dtype, device=model.device).masked_fill(~allowed, lowest)


def _forward(
    model: Any, ids: list[int], positions: list[int], mask: Tensor, kept: list[int], cache: DynamicCache
) -> Tensor:
    """Logits of the kept positions, ``[kept, vocabulary]``."""
    keep = torch.tensor(kept, device=model.device)
    logits: Tensor = model(
        input_ids=_row(model, ids),
        position_ids=_row(model, positions),
        attention_mask=mask,
        past_key_values=copy_cache(cache),
        use_cache=True,
        logits_to_keep=keep,
    ).logits[0]
    # A model without `logits_to_keep` gives them all.
    return logits if len(logits) == len(kept) else logits[keep]


def _gather(logits: Tensor, targets: list[tuple[int, int, int]], counts: list[int]) -> list[list[float]]:
    sources, tokens, places = torch.tensor(targets, device=logits.device).unbind(1)
    norms = torch.cat([part.float().logsumexp(-1) for part in torch.split(logits, 256)])
    values = logits[sources, tokens].float() - norms[sources]
    sums = torch.zeros(sum(counts), device=logits.device).index_add_(0, places, values)
    return [part.tolist() for part in torch.split(sums.cpu(), counts)]


def _row(model: Any, values: Ids) -> Tensor:
    return torch.tensor([list(values)], dtype=torch.long, device=model.device)
