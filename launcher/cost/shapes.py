"""The shape of a base model: from its config where that is on this machine, else from a dated table of ours.

The table's rows are the published config.json files; that their weights add up to the published number of parameters is
tested. A model in neither gets the nearest shape of its size, and the estimate says so.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from training_image.errors import InputError

TABLE = Path(__file__).with_name("shapes.csv")
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2", "distilbert"})
PLAIN_MLP = ENCODERS | {"phi", "falcon", "gpt2", "gpt_neox", "gptj", "opt", "bloom", "starcoder2"}
"""Model types whose feed-forward part has two matrices instead of three."""
TIED = ENCODERS | frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "falcon", "opt", "bloom"})
"""Model types whose head is the embedding where config.json does not say."""
FUSED = frozenset({"phi3", "falcon"})
"""Model types with one matrix for query, key and value (and, phi3, for gate and up)."""
NORMED_HEADS = frozenset({"qwen3", "gemma3", "gemma3_text"})
"""Model types with a norm on queries and keys."""
FOUR_NORMS = frozenset({"gemma2", "gemma3", "gemma3_text"})
"""Model types with norms behind attention and feed-forward part too."""
_SUFFIXES = re.compile(r"-(instruct|chat|it|base|hf|bnb-4bit|unsloth|4k|128k|v0\.[12])(?=-|$)")


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that memory and time follow from."""

    name: str
    type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the head is the embedding."""
    licence: str
    restricted: bool
    """Whether the hub asks for a consent first."""
    origin: str
    """Where the shape is known from, in words."""
    guessed: bool = False

    @property
    def queries(self) -> int:
        """Width of all heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def up(self) -> int:
        """Width of what leaves the first step of the feed-forward part."""
        return self.intermediate * (1 if self.type in PLAIN_MLP else 2)

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """The linear layers of one layer, in by out, the head not among them."""
        h, q, k, f = self.hidden, self.queries, self.keys, self.intermediate
        first = [(h, q + 2 * k)] if self.type in FUSED else [(h, q), (h, k), (h, k)]
        ups = [(h, self.up)] if self.type == "phi3" else [(h, f)] * (self.up // f)
        return [*first, (q, h), *ups, (f, h)]

    @property
    def linear(self) -> int:
        """Weights of all linear layers but the head."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.matrices)

    @property
    def head(self) -> int:
        """Weights of the head, whether or not it is the embedding."""
        return self.vocabulary * self.hidden

    @property
    def embedding(self) -> int:
        """Weights of embedding and head."""
        return self.head * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All weights, small ones (norms) by their usual number."""
        return self.linear + self.embedding + (2 * self.layers + 1) * self.hidden

    def adapter(self, rank: int) -> int:
        """Weights of a LoRA adapter on all linear layers but the head."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.matrices)


def find(model_id: str, folder: Path | None = None) -> Shape:
    """The shape of a job's base model. ``folder``: where it lies here, if it does.

    Raises InputError for a model of unknown shape and size, and for a mixture of experts.
    """
    config = _config_here(model_id, folder)
    if config is not None:
        return from_config(config, model_id)
    known = table()
    if (found := known.get(plain_name(model_id))) is not None:
        return found
    size = _size_in(model_id) or _size_known(model_id)
    if size is None:
        hint = "put its config.json into a folder and name that as model.id"
        raise InputError(f"the shape of the model {model_id!r} is not known", hint=hint)
    nearest = min(known.values(), key=lambda shape: abs(shape.parameters / size - 1))
    if not 0.6 <= nearest.parameters / size <= 1.6:
        hint = "put its config.json into a folder and name that as model.id"
        raise InputError(f"no model of the size of {model_id!r} is known", hint=hint)
    origin = f"guessed: taken for {nearest.name}, the nearest known of its size"
    return replace(nearest, name=model_id, licence="unknown", restricted=False, origin=origin, guessed=True)


def from_config(config: Mapping[str, Any], name: str) -> Shape:
    """The shape in a transformers config.json. Raises InputError for what it does not tell."""
    text = config.get("text_config") or config
    kind = str(text.get("model_type") or config.get("model_type") or "")
    if any(text.get(key) for key in ("num_local_experts", "num_experts", "n_routed_experts")):
        raise InputError(f"{name} is a mixture of experts, which the estimate does not model", hint="see docs/cost.md")
    try:
        hidden = int(_first(text, "hidden_size", "n_embd", "d_model", "dim"))
        heads = int(_first(text, "num_attention_heads", "n_head", "n_heads"))
        intermediate = _first(
            text, "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "hidden_dim", default=4 * hidden
        )
        one = kind == "falcon" and text.get("multi_query")
        return Shape(
            name=name,
            type=kind,
            layers=int(_first(text, "num_hidden_layers", "n_layer", "n_layers")),
            hidden=hidden,
            heads=heads,
            kv_heads=1 if one else int(_first(text, "num_key_value_heads", "num_kv_heads", default=heads)),
            head_dim=int(_first(text, "head_dim", default=hidden // heads)),
            intermediate=int(intermediate),
            vocabulary=int(text["vocab_size"]),
            tied=bool(_first(text, "tie_word_embeddings", default=config.get("tie_word_embeddings", kind in TIED))),
            licence="see the model",
            restricted=False,
            origin="its config.json on this machine",
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        hint = "the estimate needs the config.json of a transformers decoder"
        raise InputError(f"the config.json of {name} does not tell its shape: {error}", hint=hint) from error


@cache
def table() -> dict[str, Shape]:
    """The bundled shapes by plain name."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {plain_name(row["model"]): _row(row) for row in csv.DictReader(file)}


def plain_name(model_id: str) -> str:
    """A hub id without owner and variant: ``llama-3.1-8b`` for ``meta-llama/Meta-Llama-3.1-8B-Instruct``."""
    name = model_id.rpartition("/")[2].lower().removeprefix("meta-")
    while (shorter := _SUFFIXES.sub("", name)) != name:
        name = shorter
    return name


def _row(row: Mapping[str, str]) -> Shape:
    return Shape(
        name=row["model"],
        type=row["type"],
        layers=int(row["layers"]),
        hidden=int(row["hidden"]),
        heads=int(row["heads"]),
        kv_heads=int(row["kv_heads"]),
        head_dim=int(row["head_dim"]),
        intermediate=int(row["intermediate"]),
        vocabulary=int(row["vocabulary"]),
        tied=row["tied"] == "yes",
        licence=row["licence"],
        restricted=row["restricted"] == "yes",
        origin=f"table of model shapes, config.json of {row['as_of']}",
    )


def _first(config: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    found = next((config[name] for name in names if config.get(name) is not None), default)
    if found is None:
        raise KeyError(names[0])
    return found


def _size_in(name: str) -> float | None:
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])", plain_name(name))
    return float(found[-1][0]) * (1e9 if found[-1][1] == "b" else 1e6) if found else None


def _size_known(model_id: str) -> float | None:
    """The size of a model of `ftlaunch models`, whose name need not tell it."""
    from launcher.models_table import known_models

    return next((float(model.parameters) for model in known_models() if model.id == model_id), None)


def _config_here(model_id: str, folder: Path | None) -> dict[str, Any] | None:
    """The config of a model's folder, or of the hub's cache."""
    folders = [folder] if folder is not None else snapshots(model_id)
    for path in (each / "config.json" for each in folders):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and ("vocab_size" in found or "text_config" in found):
            return found
    return None


def snapshots(model_id: str) -> list[Path]:
    """The folders of a hub model in the hub's cache on this machine."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    return sorted((cache / f"models--{model_id.replace('/', '--')}" / "snapshots").glob("*"))
