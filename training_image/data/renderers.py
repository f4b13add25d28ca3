"""Which renderer a base model's rows go through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training_image.data.encoder import EncoderRenderer, is_encoder
from training_image.data.problems import DataError
from training_image.data.render import Renderer
from training_image.spec import Spec

AnyRenderer = Renderer | EncoderRenderer


def renderer_of(tokenizer: Any, spec: Spec, labels: Sequence[str], config: Any) -> AnyRenderer:
    """The renderer for a model of this config: the chat template's, or an encoder's.

    Raises as they do, and DataError for rows and answers that a decoder has no positions for.
    """
    if is_encoder(config):
        return EncoderRenderer(tokenizer, spec, labels, config.max_position_embeddings)
    renderer = Renderer(tokenizer, spec, labels)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    # An answer that is written may be longer than the room that its prompt leaves.
    longest = spec.data.max_length + (max(0, spec.task.max_new_tokens - renderer.room) if renderer.generates else 0)
    if positions and positions < longest:
        raise DataError(
            f"the model has {positions} positions, a prompt with its answer may take {longest}",
            f"Set data.max_length to {positions} or less, and task.max_new_tokens to at most a quarter of it.",
            "too_long",
        )
    return renderer
