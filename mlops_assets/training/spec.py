"""The settings of this stage: where the base model comes from, and how it is fine-tuned.

Both specs are flat, with fields that choose a kind (`source`; `method` and `adapter`). What
the chosen kind would ignore is refused, so that every value in a profile means something.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.licenses import spdx
from mlops_assets.prompts import NAME, NONE

SOURCES = "^(tiny|local|hub)$"
COMMIT = "^([0-9a-f]{40})?$"
READ_BY = {  # which source reads which settings; `source` itself is read by all
    "tiny": {"vocabulary", "hidden_size", "layers", "heads", "mlp_size"}
    | {"pretrain_epochs", "pretrain_learning_rate", "pretrain_batch_tokens", "seed"},
    "local": {"path"},
    "hub": {"repo_id", "revision"},
}

LORA_FAMILY = ("lora", "rslora", "dora")
"""Adapters of low-rank matrices, which can be merged into the base's weights."""
EVERY_TRAINING = {"method", "adapter", "precision", "epochs", "learning_rate", "warmup_share"}
EVERY_TRAINING |= {"weight_decay", "accumulation", "hub_kernels", "seed", "prompt"}
WITHOUT_EFFECT = {"checkpoint_seconds"}  # on the bytes: read, but not part of the recipe
PACKED, PADDED = {"pack_tokens", "packs_per_step"}, {"row_tokens", "rows_per_step"}
READ_BY_METHOD = {
    "sft": {"word_dropout", "label_smoothing"},
    "dpo": {"beta", "likelihood_weight"},
    "orpo": {"beta"},
    "kto": {"beta"},
}
_LOW_RANK = {"quantization", "rank", "alpha", "dropout", "adapt_embeddings", "train_head"}
READ_BY_ADAPTER = {
    **dict.fromkeys(LORA_FAMILY, _LOW_RANK | {"gradient_checkpointing"}),
    # Its keys and values stand in the cache, which checkpointing switches off.
    "prefix": {"quantization", "prefix_tokens"},
    "full": {"gradient_checkpointing"},
}


class BaseModelSpec(BaseModel):
    """Where the base model comes from; what the chosen source would ignore is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(
        "tiny",
        pattern=SOURCES,
        description="`tiny` (built from scratch on the train split), `local` or `hub`.",
    )
    path: str = Field("", description="`local`: directory in Hugging Face format.")
    repo_id: str = Field(
        "", pattern=r"^([\w.-]+/[\w.-]+)?$", description="`hub`: repository, `owner/name`."
    )
    revision: str = Field(
        "", pattern=COMMIT, description="`hub`: the commit, 40 hex digits; branches can move."
    )
    license: str = Field(
        "",
        max_length=200,
        description="The model's licence, an SPDX expression or `unknown`; empty: what its README"
        " or configuration says. For the model card; the bytes do not depend on it.",
    )
    vocabulary: int = Field(
        3000, ge=300, le=32000, description="`tiny`: BPE tokens, label tokens not counted."
    )
    hidden_size: int = Field(
        128, ge=16, le=1024, multiple_of=8, description="`tiny`: width of the hidden states."
    )
    layers: int = Field(1, ge=1, le=12, description="`tiny`: decoder layers.")
    heads: int = Field(2, ge=1, le=16, description="`tiny`: attention heads; divide the width.")
    mlp_size: int = Field(512, ge=16, le=4096, description="`tiny`: width of the MLP.")
    pretrain_epochs: int = Field(
        1, ge=1, le=200, description="`tiny`: passes over the texts of the train split."
    )
    pretrain_learning_rate: float = Field(
        3e-3, gt=0, le=0.1, description="`tiny`: AdamW's peak, warmed up, then cosine to zero."
    )
    pretrain_batch_tokens: int = Field(
        512, ge=64, le=65536, description="`tiny`: tokens packed into one optimiser step."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="`tiny`: of weights, order and primed labels.")

    _license_is_spdx = field_validator("license")(spdx)

    @model_validator(mode="after")
    def _only_what_is_read(self) -> "BaseModelSpec":
        if ignored := _changed(self, set().union(*READ_BY.values()) - READ_BY[self.source]):
            raise ValueError(f"source {self.source!r} does not read {', '.join(ignored)}")
        required = {"local": ("path",), "hub": ("repo_id", "revision")}.get(self.source, ())
        if missing := [name for name in required if not getattr(self, name)]:
            raise ValueError(f"source {self.source!r} needs {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> "BaseModelSpec":
        if self.hidden_size % (2 * self.heads):  # rotary embeddings want an even head width
            raise ValueError(f"hidden_size must be a multiple of 2 * heads ({2 * self.heads})")
        return self

    def read(self) -> dict[str, Any]:
        """The settings that the chosen source reads: what decides the model's bytes."""
        return self.model_dump(mode="json", include=READ_BY[self.source] | {"source"})


class FinetuneSpec(BaseModel):
    """How the base model is tuned; every value that is read changes what comes out.

    `method` chooses the loss, `adapter` which weights are trained; docs/training.md has the
    table of what each combination reads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(
        "sft",
        pattern="^(sft|dpo|orpo|kto)$",
        description="The loss: `sft` learns the answers; `dpo`, `orpo` and `kto` also learn from"
        " rejected ones.",
    )
    adapter: str = Field(
        "lora",
        pattern="^(lora|rslora|dora|prefix|full)$",
        description="What is trained: low-rank matrices (plain, rank-stabilised, or with"
        " magnitudes), keys and values before the prompt, or `full`: every weight.",
    )
    rank: int = Field(64, ge=1, le=512, description="LoRA family: rank of the matrices.")
    alpha: float = Field(
        64.0,
        gt=0,
        le=4096,
        description="LoRA family: scale; divided by the rank, by its root in `rslora`.",
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="LoRA family: dropout before the matrices, a share."
    )
    adapt_embeddings: bool = Field(
        True, description="LoRA family: adapt the input embeddings too, not only linear layers."
    )
    train_head: bool = Field(
        True, description="LoRA family: train the output layer in full (stored with the adapter)."
    )
    prefix_tokens: int = Field(
        16, ge=1, le=1024, description="`prefix`: trained keys and values in each layer."
    )
    quantization: str = Field(
        "none",
        pattern="^(none|nf4)$",
        description="LoRA family and `prefix`: `nf4` holds the base in 4 bits (QLoRA).",
    )
    precision: str = Field(
        "auto",
        pattern="^(auto|fp32|bf16)$",
        description="`auto` is bf16 on a GPU that has it, else fp32 (faster on CPUs here).",
    )
    prompt: str = Field(
        NONE,
        pattern=NAME,
        description="System prompt, a name in prompts/; the release is measured and served with"
        " the one that it was trained with.",
    )
    epochs: int = Field(2, ge=1, le=200, description="Passes over the train split.")
    learning_rate: float = Field(
        1e-3, gt=0, le=0.1, description="AdamW's peak, warmed up, then cosine to zero."
    )
    warmup_share: float = Field(0.03, ge=0, le=0.5, description="Warm-up, share of the steps.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's decoupled weight decay.")
    word_dropout: float = Field(
        0.0, ge=0, lt=1, description="`sft`: share of prompt tokens hidden, a regulariser."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="`sft`: probability given to all other tokens."
    )
    beta: float = Field(
        0.1,
        gt=0,
        le=10,
        description="`dpo`, `kto`: how closely the base is followed; `orpo`: weight of the odds"
        " ratio beside the likelihood.",
    )
    likelihood_weight: float = Field(
        0.0,
        ge=0,
        le=100,
        description="`dpo`: weight of the better answer's likelihood beside the preference, which"
        " alone may make both answers unlikely.",
    )
    pack_tokens: int = Field(
        512,
        ge=32,
        le=131072,
        description="`sft`, not `prefix`: tokens of one packed sequence; longer rows are left out.",
    )
    packs_per_step: int = Field(
        1, ge=1, le=1024, description="`sft`, not `prefix`: packed sequences in one pass."
    )
    row_tokens: int = Field(
        512,
        ge=32,
        le=131072,
        description="Where rows are padded, not packed: tokens of the longest prompt and answer;"
        " longer rows are left out.",
    )
    rows_per_step: int = Field(
        8, ge=1, le=1024, description="Where rows are padded: rows or pairs in one pass."
    )
    accumulation: int = Field(
        1, ge=1, le=1024, description="Passes whose gradients are summed before a step."
    )
    gradient_checkpointing: str = Field(
        "auto",
        pattern="^(auto|always|never)$",
        description="All but `prefix`: recompute activations, for a third more work; `auto` does"
        " so only where the memory plan would not fit otherwise.",
    )
    hub_kernels: bool = Field(
        False,
        description="On a GPU: layers and attention from the package `kernels`, which fetches"
        " compiled code from the hub.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the adapter's weights and the order.")
    checkpoint_seconds: float = Field(
        15.0,
        ge=0,
        le=86400,
        description="Seconds between checkpoints, or 100 times what the last took to write if that"
        " is more; 0: after each step. What comes out does not depend on it.",
    )

    @model_validator(mode="after")
    def _only_what_is_read(self) -> "FinetuneSpec":
        unread = FinetuneSpec.model_fields.keys() - self._names_read() - WITHOUT_EFFECT
        if ignored := _changed(self, unread):
            raise ValueError(
                f"method {self.method!r} with adapter {self.adapter!r} does not read"
                f" {', '.join(ignored)}"
            )
        return self

    @model_validator(mode="after")
    def _enough_to_compare(self) -> "FinetuneSpec":
        if self.method == "kto" and self.rows_per_step == 1:
            raise ValueError(
                "method 'kto' compares rows of one pass: rows_per_step must be 2 or more"
            )
        return self

    @property
    def packed(self) -> bool:
        """Whether rows are packed end to end; else they are padded to the longest of a pass."""
        return self.method == "sft" and self.adapter != "prefix"

    @property
    def longest(self) -> int:
        """Tokens that a row may have, prompt and answer."""
        return self.pack_tokens if self.packed else self.row_tokens

    def read(self) -> dict[str, Any]:
        """The settings that this method and adapter read: what decides the bytes."""
        return self.model_dump(mode="json", include=self._names_read())

    def _names_read(self) -> set[str]:
        layout = PACKED if self.packed else PADDED
        chosen = READ_BY_METHOD[self.method] | READ_BY_ADAPTER[self.adapter]
        return EVERY_TRAINING | layout | chosen


def _changed(spec: BaseModel, names: set[str]) -> list[str]:
    """Those of ``names`` that were given another value than the default."""
    fields = type(spec).model_fields
    return sorted(name for name in names if getattr(spec, name) != fields[name].default)
