"""Greedy answers, batched: the prompts' common prefix is run once, the rest is padded on the left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from training_image.evaluate.score import Ids, common_prefix, copy_cache, prefix_cache
from training_image.model import evaluating
from training_image.sharding import is_sharded

_MOST_ROWS = {"cpu": 32}
_MOST_ROWS_ACCELERATOR = 128
_CACHED_TOKENS = {"cpu": 16_384}
_CACHED_TOKENS_ACCELERATOR = 131_072


def generate(
    model: Any, prompts: Sequence[Ids], stops: Collection[int], max_new_tokens: int, *, rows: int | None = None
) -> list[list[int]]:
    """The tokens that follow each prompt, without the stop token, at most ``max_new_tokens``.

    Decoding is greedy whatever the model's own generation settings say (sampling, penalties), so that all models
    answer in one way. ``rows`` is the size of a batch, by default what a cache of moderate size holds.
    """
    if not prompts:
        return []
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=sorted(stops),
        pad_token_id=min(stops),
        use_cache=True,
    )
    shared = common_prefix(prompts)
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    size = rows or _rows(model, len(prompts[order[0]]) + max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    with evaluating(model):
        cache = prefix_cache(model, prompts[0][:shared]) if shared else None
        if cache is None:  # padding behind a shared beginning would push it out of a sliding window
            shared = 0
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            some = [prompts[row] for row in batch]
            for row, answer in zip(batch, _batch(model, some, shared, cache, settings), strict=True):
                answers[row] = _until_stop(answer, stops)
    return answers


def _rows(model: Any, longest: int) -> int:
    most = _MOST_ROWS.get(model.device.type, _MOST_ROWS_ACCELERATOR)
    return max(1, min(most, _CACHED_TOKENS.get(model.device.type, _CACHED_TOKENS_ACCELERATOR) // longest))


def _batch(model: Any, prompts: Sequence[Ids], shared: int, cache: Any, settings: GenerationConfig) -> list[list[int]]:
    # Padding stands between the common prefix and the rest; `generate` counts positions over the mask, so none is lost.
    width = max(map(len, prompts))
    pad = [[0] * (width - len(prompt)) for prompt in prompts]
    ids = [[*prompt[:shared], *gap, *prompt[shared:]] for prompt, gap in zip(prompts, pad, strict=True)]
    mask = [[1] * shared + gap + [1] * (len(p) - shared) for p, gap in zip(prompts, pad, strict=True)]
    own = {}
    if cache is not None:
        own["past_key_values"] = copy_cache(cache)
        own["past_key_values"].batch_repeat_interleave(len(prompts))
    found: list[list[int]] = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=settings,
        synced_gpus=is_sharded(model),  # no process ends while another has to run the layers with it
        **own,
    )[:, width:].tolist()
    return found


def _until_stop(tokens: list[int], stops: Collection[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[:end]
