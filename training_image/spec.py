"""The part of the job file that the container reads.

The launcher validates the whole job file with these models and a few of its own (``launcher.job``), then writes this
part as ``spec.json`` beside the data. Everything is strict: an unknown key or a wrong type is an error.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]
TaskType = Literal["classification", "qa", "instruction", "chat", "completion"]

DEFAULT_METRIC: dict[str, str] = {
    "classification": "macro_f1",
    "qa": "f1",
    "instruction": "rouge_l",
    "chat": "rouge_l",
    "completion": "perplexity",
}


class Section(BaseModel):
    """A strict, immutable group of keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Model(Section):
    """The base model."""

    id: str = Field(description="Model to tune: a hub id (org/name) or a local folder with a transformers checkpoint.")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit) of the model.")
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = Field(
        "auto", description="Attention implementation; auto takes the fastest that keeps samples apart on the device."
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Compute type; auto takes what the device does well (bf16, fp16 on a T4, fp32 on most CPUs).",
    )


class Split(Section):
    """Shares of the training rows that become validation and test rows where no file is given for them."""

    validation: float = Field(0.15, ge=0.0, lt=1.0, description="Share of rows for validation.")
    test: float = Field(0.2, ge=0.0, lt=1.0, description="Share of rows for test.")


class Data(Section):
    """Where the rows are and how they are read."""

    train: str = Field(description="Training rows: a jsonl, json, csv or parquet file, or hub:ORG/NAME[:SPLIT].")
    validation: str | None = Field(None, description="Validation rows; split off the training rows if absent.")
    test: str | None = Field(None, description="Test rows; split off the training rows if absent.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Which column plays which role, ROLE: COLUMN. Roles: id, text, label, question, context, answers, "
            "messages, prompt, completion, system, input. A role not named is looked for under its own name."
        ),
    )
    group: str | None = Field(
        None,
        description="Column whose equal values (a document, a patient) stay in one split; intervals draw them whole.",
    )
    split: Split = Field(default_factory=Split, description="Shares split off by hash where no file is given.")
    max_length: Annotated[int, Field(ge=16)] = Field(
        1024,
        description="Longest row in tokens, with room for the longest label or task.max_new_tokens; prompts are cut.",
    )
    on_long: Literal["cut", "drop", "refuse"] = Field(
        "cut", description="What becomes of a row longer than max_length."
    )
    on_leak: Literal["refuse", "drop_train"] = Field(
        "refuse", description="What becomes of a test input found in train too."
    )
    on_duplicate: Literal["keep", "drop"] = Field("keep", description="What becomes of exact repeats inside train.")
    near_duplicate: float = Field(
        0.8, gt=0.0, le=1.0, description="Jaccard similarity on words from which rows are near."
    )
    min_rows: Annotated[int, Field(ge=1)] = Field(20, description="Fewer usable training rows than this are refused.")
    max_rows: Annotated[int, Field(ge=1)] | None = Field(
        None, description="At most this many rows of each split (a rehearsal)."
    )


class Task(Section):
    """What the model has to do and how it is judged."""

    type: TaskType = Field(description="classification, qa, instruction, chat or completion.")
    metric: str | None = Field(
        None, description="Metric that decides; default by type (macro_f1, f1, rouge_l, perplexity)."
    )
    labels: list[str] | None = Field(
        None, description="All labels, in order; default: those of the training rows, sorted."
    )
    instruction: str | None = Field(None, description="Instruction put before each input; a sensible one by default.")
    max_new_tokens: Annotated[int, Field(ge=1)] = Field(128, description="Longest generated answer in tokens.")

    @property
    def metric_name(self) -> str:
        """The metric that decides, resolved by task type."""
        return self.metric or DEFAULT_METRIC[self.type]


class Train(Section):
    """How the adapter is trained. Sources of the defaults: QLoRA (Dettmers 2023), rsLoRA (Kalajdzievski 2023), LoRA
    without regret (Schulman 2025)."""

    method: Literal["auto", "qlora", "lora"] = Field(
        "auto", description="qlora: 4-bit NF4 base; lora: base in the compute type."
    )
    rank: Annotated[int, Field(ge=1, le=512)] = Field(16, description="LoRA rank, on all linear layers.")
    alpha: Annotated[int, Field(ge=1)] = Field(16, description="LoRA alpha.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="LoRA dropout.")
    variant: Literal["rslora", "lora", "dora", "pissa", "loraplus"] = Field(
        "rslora",
        description=(
            "rslora scales by alpha / sqrt(rank), lora by alpha / rank; dora learns magnitudes apart, more slowly; "
            "pissa starts from the base's principal components; loraplus gives B sixteen times A's rate."
        ),
    )
    modules_to_save: list[str] = Field(
        default_factory=list, description="Modules trained whole and saved beside the adapter (embed_tokens, lm_head)."
    )
    learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Peak rate; default by size: 1e-4 from 13B, 2e-4 from 1B, 1e-3 below (encoders 5e-4)."
    )
    scheduler: Literal["linear", "cosine", "constant"] = Field(
        "cosine", description="Learning-rate schedule after warm-up."
    )
    warmup: float = Field(0.05, ge=0.0, lt=1.0, description="Share of the steps for warm-up.")
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "auto", description="auto: paged 8-bit AdamW on a GPU, AdamW on the CPU."
    )
    epochs: Annotated[float, Field(gt=0.0)] = Field(3.0, description="Passes over the training rows.")
    max_steps: Annotated[int, Field(ge=1)] | None = Field(None, description="Stop after this many optimizer steps.")
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="Rows an optimizer step sees, over all devices.")
    micro_batch_tokens: Annotated[int, Field(ge=16)] | None = Field(
        None, description="Tokens in one forward pass; default by the memory at hand."
    )
    batching: Literal["auto", "packed", "padded"] = Field(
        "auto",
        description="packed: rows laid end to end, kept apart by attention; padded: rows of like length together.",
    )
    checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description="Gradient checkpointing; auto only when needed."
    )
    evaluations_per_epoch: Annotated[int, Field(ge=1)] = Field(
        1, description="Validations by the task metric in an epoch."
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        2, description="Validations without a gain before an early stop; 0: never."
    )
    checkpoint_minutes: Annotated[float, Field(gt=0.0)] = Field(5.0, description="Minutes between checkpoints.")
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Steps between checkpoints, as well."
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of data order, adapter and bootstrap.")

    @model_validator(mode="after")
    def _variant_goes_with_the_rest(self) -> Train:
        if self.variant == "pissa" and self.modules_to_save:
            raise ValueError("modules_to_save cannot be had with variant: pissa; peft converts no such adapter")
        return self


class Evaluate(Section):
    """What is measured, before and after."""

    enough: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        0.92, description="A baseline whose lower bound reaches this ends the job untuned; null: always tune."
    )
    shots: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Few-shot examples; default: one a label, else 4. A multiple of the number of labels."
    )
    slices: list[str] = Field(default_factory=list, description="Columns by whose values the metrics are split.")
    resamples: Annotated[int, Field(ge=200)] = Field(2000, description="Bootstrap resamples of every interval.")
    forgetting: bool = Field(True, description="Measure the loss on a fixed general text before and after.")


class Tracking(Section):
    """Where the curves go."""

    report_to: list[Tracker] = Field(
        default_factory=lambda: list[Tracker](("tensorboard",)),
        description=(
            "Where the curves go: tensorboard, mlflow, wandb, trackio. MLFLOW_TRACKING_URI, WANDB_API_KEY or "
            "TRACKIO_SPACE_ID among `secrets` name a server; without them the runs lie in the results."
        ),
    )


class Candidate(Section):
    """A base model that a screening measures."""

    name: str = Field(description="What the user calls it: hub id or folder.")
    id: str = Field(description="Where it is: a hub id, or a folder among the job's data.")


class Spec(Section):
    """All that the container reads; ``spec.json``."""

    schema_: Literal[1] = Field(1, alias="schema", description="Version of this file.")
    job: str = Field(description="The job's name, STEM-xxxxxxxx.")
    goal: Literal["tune", "trial", "screen"] = Field(
        "tune",
        description=(
            "tune: a whole job. trial: train and say how good the validation rows are answered; screen: measure base "
            "models on the validation rows; neither of the two takes a test row."
        ),
    )
    candidates: list[Candidate] = Field(default_factory=list, description="The base models of a screening.")
    base: str | None = Field(None, description="What the user calls a base model that was staged: hub id or folder.")
    model: Model
    data: Data
    task: Task
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    tracking: Tracking = Field(default_factory=Tracking)

    @property
    def base_model(self) -> str:
        """The base model's name for people and for the adapter's own record, never a staged path."""
        return self.base or self.model.id

    @model_validator(mode="after")
    def _roles_are_known(self) -> Spec:
        unknown = set(self.data.columns) - ROLES
        if unknown:
            raise ValueError(f"data.columns: unknown role {sorted(unknown)[0]!r}; known: {', '.join(sorted(ROLES))}")
        return self


ROLES = frozenset(
    {"id", "text", "label", "question", "context", "answers", "messages", "prompt", "completion", "system", "input"}
)
