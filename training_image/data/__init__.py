"""Data: rows read, split and checked, and rendered as token ids with their masks."""

from __future__ import annotations

from training_image.data.examples import IGNORED, Example, Message, Sample
from training_image.data.fit import render_splits, require_embeddings
from training_image.data.load import Splits, load_splits
from training_image.data.render import Renderer
from training_image.data.renderers import AnyRenderer, renderer_of

__all__ = [
    "IGNORED",
    "AnyRenderer",
    "Example",
    "Message",
    "Renderer",
    "Sample",
    "Splits",
    "load_splits",
    "render_splits",
    "renderer_of",
    "require_embeddings",
]
