"""A tiny chat model of our own, and the data sets that the tests tune it on."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""The checkpoint (float16; ChatML template; pad is eos); `train_tiny_model` makes it."""
