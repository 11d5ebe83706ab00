"""What may be set about the rows that feedback gives."""

from pydantic import BaseModel, ConfigDict, Field


class FeedbackSpec(BaseModel):
    """Where versions lie, what no row may repeat, and how much one person may teach."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str = Field(
        "${MLOPS_HOME}/feedback",
        min_length=1,
        max_length=4096,
        description="Directory of the versions: private, tracked by DVC.",
    )
    suites: str = Field(
        "data/evals",
        max_length=4096,
        description="Directory of the suites that no row may repeat, as eval_report's; empty: only"
        " the test split.",
    )
    max_rows_per_person: int = Field(
        50, ge=1, le=100_000, description="Most rows of one person in a version, and most cases."
    )
    max_person_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Greatest share of a version's rows, and of its cases, that one person gave:"
        " 0.25 takes at least four people.",
    )
    max_tenant_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Greatest share of one tenant (API key), who names its users itself, of all"
        " that is learnt, the train split with it; and of all that is held out, cases with it.",
    )
    regression_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the people who ask whose corrections become cases of the evaluation,"
        " not rows to learn from.",
    )
    regeneration_minutes: float = Field(
        5.0,
        gt=0,
        le=1440,
        description="Within this time the same question of the same user asks for another answer.",
    )
    excluded: list[str] = Field(
        default_factory=list,
        max_length=10_000,
        description="People, users, tenants or requests, as provenance.jsonl names them, whose"
        " feedback is set aside.",
    )
