"""Forgetting: the loss on a fixed general text, before and after."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from training_image.evaluate.score import plain_log_likelihoods

_WINDOW = 512


def general_text() -> str:
    """Plain English prose on many subjects, written for this purpose, CC0; never trained on."""
    return files("training_image.evaluate").joinpath("general_text.txt").read_text(encoding="utf-8")


def general_loss(model: Any, tokenizer: Any) -> float:
    """Mean loss of the general text in nats a token, in windows of 512 tokens."""
    ids: list[int] = tokenizer(general_text())["input_ids"]
    windows = [ids[start : start + _WINDOW] for start in range(0, len(ids) - 1, _WINDOW)]
    windows = [window for window in windows if len(window) > 1]
    sums = plain_log_likelihoods(model, [window[:1] for window in windows], [[window[1:]] for window in windows])
    return -sum(total for (total,) in sums) / sum(len(window) - 1 for window in windows)
