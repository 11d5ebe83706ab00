"""The settings of this stage: where the base model comes from, and how it is fine-tuned."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

SOURCES = "^(tiny|local|hub)$"
COMMIT = "^([0-9a-f]{40})?$"
READ_BY = {  # which source reads which settings; `source` itself is read by all
    "tiny": {"vocabulary", "hidden_size", "layers", "heads", "mlp_size"}
    | {"pretrain_epochs", "pretrain_learning_rate", "pretrain_batch_tokens", "seed"},
    "local": {"path"},
    "hub": {"repo_id", "revision"},
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

    @model_validator(mode="after")
    def _only_what_is_read(self) -> "BaseModelSpec":
        ignored = [
            name
            for name in sorted(set().union(*READ_BY.values()) - READ_BY[self.source])
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if ignored:
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
    """How the LoRA adapter is trained; every value changes the adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(64, ge=1, le=512, description="Rank of the LoRA matrices.")
    alpha: float = Field(64.0, gt=0, le=4096, description="LoRA scale; divided by the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the LoRA path, a share.")
    adapt_embeddings: bool = Field(
        True, description="Adapt the input embeddings too, not only the linear layers."
    )
    train_head: bool = Field(
        True, description="Train the output layer in full (it is stored with the adapter)."
    )
    quantization: str = Field(
        "none", pattern="^(none|nf4)$", description="`nf4` holds the base in 4 bits (QLoRA)."
    )
    precision: str = Field(
        "auto",
        pattern="^(auto|fp32|bf16)$",
        description="`auto` is bf16 on a GPU that has it, else fp32 (faster on CPUs here).",
    )
    epochs: int = Field(2, ge=1, le=200, description="Passes over the train split.")
    learning_rate: float = Field(
        1e-3, gt=0, le=0.1, description="AdamW's peak, warmed up, then cosine to zero."
    )
    warmup_share: float = Field(0.03, ge=0, le=0.5, description="Warm-up, share of the steps.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's decoupled weight decay.")
    word_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of prompt tokens hidden in training, a regulariser."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Probability given to all other tokens, a regulariser."
    )
    pack_tokens: int = Field(
        512,
        ge=32,
        le=131072,
        description="Tokens of one packed sequence; longer rows are left out.",
    )
    packs_per_step: int = Field(
        1, ge=1, le=1024, description="Packed sequences in one forward and backward pass."
    )
    accumulation: int = Field(
        1, ge=1, le=1024, description="Passes whose gradients are summed before a step."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations to save memory, at a third of the speed."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the adapter's weights and the order.")
