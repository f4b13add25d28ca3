"""Attention of rows that lie end to end behind their common beginning: each looks at the beginning and at itself.

Under one mask over all, every token would be multiplied with every other one, only to be masked away: with eight rows
of a step that is eight times the work. Here the rows attend one by one: by a kernel for rows of any length where the
GPU has one (flash-attention's, else torch's own), and some of like length at a time elsewhere, which any SDPA kernel
does.

The way in is transformers' attention interface: what goes by ``sdpa`` there takes the rows' places as one more
argument of the forward pass, and is plain SDPA without it. A model that does not hand the argument on, or attends in
more ways than this, is met by the mask that goes with it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

Kernel = Literal["flash_attn", "torch"]
"""A kernel for rows of any length: the package flash_attn's, or torch's own."""
_MODULES: dict[Kernel, str] = {"flash_attn": "flash_attn", "torch": "torch.nn.attention.varlen"}
_ALIKE = 0.75
"""The shortest of the rows that attend together has this share of the longest one's tokens."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of like length."""

    places: Tensor
    """Where each one's own tokens lie, ``[rows, longest]``; a shorter row goes on with its last token."""
    mask: Tensor
    """What a token sees of the beginning and its own row, ``[longest, beginning + longest]`` booleans."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of any length, as kernels take them; the beginning is the first of them, where there is one."""

    queries: Tensor
    """Where each one's queries begin, ``[rows + 1]`` int32."""
    keys: Tensor
    """Where its keys begin, the beginning's among them."""
    longest: tuple[int, int]
    """Of the queries, and of the keys."""
    order: Tensor
    """Where each key lies, if all tokens come first and then the beginning once more for each row, ``[keys]``."""

    def to(self, device: torch.device) -> Ragged:
        """The same on a device."""
        return Ragged(self.queries.to(device), self.keys.to(device), self.longest, self.order.to(device))


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows of a micro-batch lie."""

    beginning: int
    """Tokens that all rows share, laid down once before them."""
    groups: tuple[Group, ...]
    order: Tensor
    """The place of each token in what beginning and groups give one after another, ``[tokens]``."""
    ragged: Ragged | None = None
    """For a kernel that takes rows of any length."""

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        groups = tuple(Group(group.places.to(device), group.mask.to(device)) for group in self.groups)
        ragged = None if self.ragged is None else self.ragged.to(device)
        return Rows(self.beginning, groups, self.order.to(device), ragged)


def kernel_for(capability: tuple[int, int] | None, dtype: torch.dtype, installed: Collection[Kernel]) -> Kernel | None:
    """The kernel for rows of any length; None: rows of like length attend together by SDPA.

    ``capability``: of the GPU, None for a CPU; both kernels need an Ampere or later, and 16 bits.
    """
    if capability is None or capability < (8, 0) or dtype not in (torch.bfloat16, torch.float16):
        return None
    order: tuple[Kernel, ...] = ("flash_attn", "torch")
    return next((name for name in order if name in installed), None)


def kernel_here(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """`kernel_for` this device and what is installed."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return kernel_for(capability, dtype, [name for name, module in _MODULES.items() if _is_there(module)])


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def rows_at(beginning: int, lengths: Sequence[int], *, ragged: bool = False) -> Rows:
    """Rows of so many own tokens, one after another from the longest to the shortest."""
    groups, order, start = [], list(range(beginning)), beginning
    laid = beginning
    for part in _alike(lengths):
        longest = part[0]
        places = []
        for length in part:
            places.append([start + min(step, length - 1) for step in range(longest)])
            order += range(laid, laid + length)
            start, laid = start + length, laid + longest
        mask = torch.ones(longest, beginning + longest, dtype=torch.bool).tril(beginning)
        groups.append(Group(torch.tensor(places), mask))
    return Rows(beginning, tuple(groups), torch.tensor(order), _ragged_at(beginning, lengths) if ragged else None)


def _ragged_at(beginning: int, lengths: Sequence[int]) -> Ragged:
    tokens = beginning + sum(lengths)
    own = [beginning, *lengths] if beginning else list(lengths)
    seen = [beginning, *(beginning + length for length in lengths)] if beginning else list(lengths)
    order, start = list(range(beginning)), beginning
    for row, length in enumerate(lengths):
        again = tokens + row * beginning
        order += [*range(again, again + beginning), *range(start, start + length)]
        start += length
    queries, keys = (torch.tensor([0, *accumulate(each)], dtype=torch.int32) for each in (own, seen))
    return Ragged(queries, keys, (max(own), max(seen)), torch.tensor(order))


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    parts: list[list[int]] = []
    for length in lengths:
        if parts and length >= _ALIKE * parts[-1][0]:
            parts[-1].append(length)
        else:
            parts.append([length])
    return parts


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_rows: Rows | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """SDPA of ``[1, heads, tokens, size]``, by rows where they are told; gives ``[1, tokens, heads, size]``."""
    unlike = more.get("position_bias") is not None or more.get("softcap") is not None
    if packed_rows is None or unlike or query.shape[2] != key.shape[2]:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return plain
    parts = [each[0].transpose(0, 1) for each in (query, key, value)]
    if packed_rows.ragged is not None and not dropout:
        return _at_once(parts, packed_rows, packed_rows.ragged, scaling)[None], None
    return _by_groups(parts, packed_rows, dropout, scaling)[None], None


def _by_groups(parts: Sequence[Tensor], rows: Rows, dropout: float, scaling: float | None) -> Tensor:
    """``parts``: queries, keys, values, ``[tokens, heads, size]`` each; gives the same shape as the queries."""
    shared = parts[0].shape[1] // parts[1].shape[1]
    first, found = rows.beginning, []
    begun = [part[:first].transpose(0, 1)[None] for part in parts]
    if first:
        q, k, v = begun[0], repeat_kv(begun[1], shared), repeat_kv(begun[2], shared)
        out = scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scaling)
        found.append(out[0].transpose(0, 1))
    for group in rows.groups:
        q, k, v = (_gathered(part, group.places) for part in parts)
        k, v = (torch.cat([b.expand(len(e), -1, -1, -1), e], 2) for b, e in ((begun[1], k), (begun[2], v)))
        k, v = repeat_kv(k, shared), repeat_kv(v, shared)
        mask = group.mask if first else None
        out = scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=not first, scale=scaling)
        found.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).index_select(0, rows.order)


def _at_once(parts: Sequence[Tensor], rows: Rows, ragged: Ragged, scaling: float | None) -> Tensor:
    """As `_by_groups`, all rows by one call of a kernel."""
    count, query = len(ragged.queries) - 2, parts[0]
    again = [part[: rows.beginning].expand(count, -1, -1, -1).flatten(0, 1) for part in parts[1:]]
    key, value = (torch.cat([p, a]).index_select(0, ragged.order) for p, a in zip(parts[1:], again, strict=True))
    where = (ragged.queries, ragged.keys, *ragged.longest)
    kernel: Kernel = kernel_here(query.device, query.dtype) or "torch"
    module = importlib.import_module(_MODULES[kernel])
    if kernel == "flash_attn":
        made = module.flash_attn_varlen_func(query, key, value, *where, softmax_scale=scaling, causal=True)
    else:
        alike = query.shape[1] == key.shape[1]
        made = module.varlen_attn(query, key, value, *where, scale=scaling, window_size=(-1, 0), enable_gqa=not alike)
    return cast("Tensor", made)


def _gathered(part: Tensor, places: Tensor) -> Tensor:
    """Tokens ``[tokens, heads, size]`` of each row as ``[rows, heads, longest, size]``."""
    rows: Tensor = part.index_select(0, places.flatten()).unflatten(0, places.shape)
    return rows.transpose(1, 2)


AttentionInterface.register("sdpa", attend)
