"""What may be set about the answer cache."""

from pydantic import BaseModel, ConfigDict, Field


class CacheSpec(BaseModel):
    """Both caches are off unless a profile turns them on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache_exact_mib: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Size of the cache for questions that are repeated word for word; 0 turns it"
        " off (MiB).",
    )
    cache_ttl: float = Field(
        3600.0, gt=0, le=30 * 86_400, description="Age from which no answer is used (seconds)."
    )
    cache_semantic: bool = Field(
        False, description="Whether a question that means the same as another gets its answer."
    )
    cache_semantic_threshold: float = Field(
        0.94,
        ge=0.5,
        le=1,
        description="Least cosine similarity of two questions that may share an answer. The"
        " default comes from `bench cache` with all-MiniLM-L6-v2: measure your own texts.",
    )
    cache_semantic_entries: int = Field(
        10_000,
        ge=1,
        le=20_000,
        description="Most questions of one scope; the oldest give way (entries).",
    )
    cache_semantic_scopes: int = Field(
        32,
        ge=1,
        le=10_000,
        description="Most scopes (tenant, release, prompt and parameters); the one that was not"
        " used for longest gives way (scopes).",
    )
    cache_semantic_timeout: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Longest wait for the semantic cache; then the engine is asked (seconds).",
    )
    cache_encoder: str = Field(
        "",
        max_length=4096,
        description="Directory of a sentence encoder in safetensors; empty takes the installed"
        " package (extra `encoder`) (path).",
    )
