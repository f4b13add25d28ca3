"""Data: rows read, split and checked, and rendered as token ids with their masks."""

from __future__ import annotations

from training_image.data.examples import IGNORED, Example, Message, Sample
from training_image.data.load import Splits, load_splits

__all__ = ["IGNORED", "Example", "Message", "Sample", "Splits", "load_splits"]
