"""What may be set of answer quality: the windows, what is too few, and what is worse by enough."""

from pydantic import BaseModel, ConfigDict, Field


class QualitySpec(BaseModel):
    """How the quality of production's answers is measured, and when it counts as worse."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(
        1_000, ge=50, le=20_000, description="Newest requests of the release that are judged."
    )
    baseline: int = Field(
        4_000,
        ge=50,
        le=100_000,
        description="Requests before them that they are compared with, at most; of the release"
        " before where this one has too few.",
    )
    history: int = Field(
        12, ge=1, le=50, description="Windows that are shown over time, the current one included."
    )
    min_requests: int = Field(
        200, ge=30, le=20_000, description="Fewer requests, on either side, say nothing."
    )
    min_votes: int = Field(
        50, ge=10, le=20_000, description="Fewer votes of a metric, on either side, say nothing."
    )
    min_users: int = Field(
        10,
        ge=2,
        le=1_000,
        description="Votes, corrections and repeated questions of fewer users, on either side, say"
        " nothing; nor do failures, times and cost of other users than before.",
    )
    regeneration_minutes: float = Field(
        5.0,
        gt=0,
        le=1_440,
        description="Within this time the same question of the same user asks for another answer.",
    )
    failure_margin: float = Field(
        0.02, ge=0.001, le=1, description="More of the requests that fail or are given up on."
    )
    excess_ratio: float = Field(
        0.25,
        ge=0,
        le=100,
        description="By how much times, cost and tokens may exceed the baseline's percentile, as a"
        " ratio: 0.25 tolerates a quarter more.",
    )
    excess_margin: float = Field(
        0.1,
        ge=0.01,
        le=1,
        description="More of the requests beyond that than were beyond the percentile.",
    )
    vote_margin: float = Field(
        0.1,
        ge=0.01,
        le=1,
        description="Loss of a metric that users vote on, on its scale of 0 to 1.",
    )
    feedback_margin: float = Field(
        0.05,
        ge=0.005,
        le=1,
        description="More of the answers that users correct, or have made again.",
    )
    cache_margin: float = Field(
        0.1, ge=0.01, le=1, description="Less of the answers that come from the cache."
    )
    quality_margin: float = Field(
        0.05,
        ge=0.005,
        le=1,
        description="Loss of exact match or a field's accuracy against the evaluation report.",
    )
    min_labels: int = Field(
        50, ge=10, le=100_000, description="Fewer labelled requests of a draw say nothing."
    )
    min_response: float = Field(
        0.8,
        ge=0.1,
        le=1,
        description="Share of a draw that must come back labelled: who skips the hard ones would"
        " make the answers look better than they are.",
    )
    label_days: int = Field(
        30,
        ge=1,
        le=3_650,
        description="Draws older than this, in days before the newest request, say nothing of now.",
    )
    seed: int = Field(7, ge=0, description="Seed of the permutation tests.")
