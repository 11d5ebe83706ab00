"""What may be set: which rows are the reference, and when a difference counts as drift."""

from pydantic import BaseModel, ConfigDict, Field


class ReferenceSpec(BaseModel):
    """Which rows of the train split production is compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference_rows: int = Field(
        5_000,
        ge=200,
        le=100_000,
        description="Newest rows of the train split that are compared; drawn where rows have no"
        " time.",
    )
    seed: int = Field(7, ge=0, lt=2**63, description="Seed of what is drawn.")


class DriftSpec(BaseModel):
    """When a difference counts as drift."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_records: int = Field(
        100, ge=30, le=1_000_000, description="Fewer records, on either side, give no verdict."
    )
    alpha: float = Field(
        0.01, ge=0.005, le=0.2, description="Chance of a false alarm over all columns together."
    )
    min_effect: float = Field(
        0.1,
        ge=0.01,
        le=1.0,
        description="Smallest distance that counts: 0.1 means that one request in ten differs.",
    )
    min_rate_effect: float = Field(
        0.05,
        ge=0.005,
        le=1.0,
        description="Smallest change that counts in the share of refusals, of empty and of invalid"
        " answers.",
    )
    sample_rows: int = Field(
        1_000,
        ge=100,
        le=10_000,
        description="Rows of each side, drawn by seed, that the page shows the distributions of.",
    )
    seed: int = Field(
        7, ge=0, lt=2**63, description="Seed of what is drawn and of the permutation tests."
    )
    embedding_rows: int = Field(
        400,
        ge=100,
        le=2_000,
        description="Texts of each side, drawn by seed from the sample, whose embeddings are"
        " compared.",
    )
    encoder: str = Field(
        "",
        max_length=4_096,
        description="Directory of a sentence encoder in safetensors; empty takes the installed"
        " package (extra `encoder`), and without one leaves text columns out (path).",
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000",
        pattern=r"^(https?://[^\s<>\"']+[^\s<>\"'/])?$",
        description="Address of the Dagster UI that the page links to; empty for none.",
    )
