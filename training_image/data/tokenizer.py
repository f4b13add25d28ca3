"""The base model's tokenizer alone, for checks that need no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_image.data.problems import DataError
from training_image.hub import offline_if_out_of_reach
from training_image.spec import Spec


def model_location(spec: Spec, data_dir: Path) -> str:
    """``model.id``, or its folder where it lies among the job's data."""
    return str(data_dir / spec.model.id) if (data_dir / spec.model.id).is_dir() else spec.model.id


def load_tokenizer(spec: Spec, data_dir: Path) -> Any:
    """Load it by transformers. Raises DataError for a model that does not exist or cannot be read."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise DataError("the check needs transformers", "pip install 'ftlaunch[local]'", "missing_extra") from None
    return _read(AutoTokenizer, "tokenizer", spec, data_dir)


def load_config(spec: Spec, data_dir: Path) -> Any:
    """Load the model's config by transformers. Raises DataError as `load_tokenizer` does."""
    from transformers import AutoConfig

    return _read(AutoConfig, "config", spec, data_dir)


def _read(factory: Any, what: str, spec: Spec, data_dir: Path) -> Any:
    location = model_location(spec, data_dir)
    if not Path(location).is_dir():
        offline_if_out_of_reach()
    try:
        return factory.from_pretrained(location, revision=spec.model.revision)
    except Exception as error:  # OSError, ValueError, and what the hub client and tokenizers raise
        text = str(error).strip().splitlines()
        raise DataError(
            f"model.id: the {what} of {spec.model.id!r} could not be loaded: {text[0] if text else error!r}",
            "Check the name (org/name) or the folder, and the network; a model with restricted access needs HF_TOKEN.",
            "model",
        ) from error
