"""What may be set about the gate: its tests, its floors and its ceilings."""

from pydantic import BaseModel, ConfigDict, Field

SUPERIORITY, NON_INFERIORITY = "superiority", "non_inferiority"


class GateSpec(BaseModel):
    """What a candidate has to show before a person is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: str = Field(
        SUPERIORITY,
        pattern=f"^({SUPERIORITY}|{NON_INFERIORITY})$",
        description="`superiority`: better than the champion; `non_inferiority`: not worse than"
        " the champion by more than the margin.",
    )
    metric: str = Field(
        "exact_match",
        min_length=1,
        description="Metric of the test split on which candidate and champion are compared.",
    )
    alpha: float = Field(
        0.05,
        ge=0.0001,
        le=0.2,
        description="Significance level of the comparison with the champion, and of the search"
        " for worse slices and suites (one-sided).",
    )
    minimum_effect: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="`superiority`: smallest gain measured over the champion (0.01: one point).",
    )
    non_inferiority_margin: float = Field(
        0.02,
        gt=0,
        le=0.5,
        description="`non_inferiority`: the loss against the champion that must be ruled out.",
    )
    slice_margin: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="Loss against the champion that a slice or a suite may have: only what is"
        " significantly worse fails.",
    )
    minimum_items: int = Field(
        100, ge=20, le=1_000_000, description="Fewer test rows give no verdict (rows)."
    )
    minimum_slice_items: int = Field(
        30,
        ge=5,
        le=1_000_000,
        description="Values of a slice with fewer rows are judged together (rows).",
    )
    minimum_suite_items: int = Field(
        10, ge=1, le=1_000_000, description="A suite with fewer items gives no verdict (items)."
    )
    minimum_exact_match: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest exact match on the test split (share)."
    )
    minimum_valid_json: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest rate of JSON objects answered (share)."
    )
    beat_majority: bool = Field(
        True, description="Floor: exact match must exceed that of the commonest answer."
    )
    minimum_golden: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest score of each suite of golden prompts."
    )
    minimum_slices: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest score of each suite that is a slice."
    )
    minimum_regression: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest score of each suite of past failures."
    )
    minimum_feedback: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest score on the cases that users corrected."
    )
    minimum_safety: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest score of each safety suite."
    )
    minimum_tool_calls: float = Field(
        0.0, ge=0, le=1, description="Floor: lowest score of each suite of tool calls."
    )
    minimum_judge: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Floor: lowest mean score by a judge that has a vote (0 to 1).",
    )
    maximum_latency_p95_ms: float = Field(
        10_000.0,
        gt=0,
        le=600_000,
        description="Ceiling: 95th percentile of the time of a single request (milliseconds).",
    )
    maximum_latency_ratio: float = Field(
        1.5,
        ge=1,
        le=100,
        description="Ceiling: that percentile, as a multiple of the champion's.",
    )
    latency_slack_ms: float = Field(
        5.0,
        ge=0,
        le=10_000,
        description="A difference to the champion's percentile below this never fails"
        " (milliseconds).",
    )
    maximum_tokens_per_answer: float = Field(
        8192.0, gt=0, le=8192, description="Ceiling: tokens generated for an answer, on average."
    )
    maximum_tokens_ratio: float = Field(
        1.5,
        ge=1,
        le=100,
        description="Ceiling: tokens for an answer, as a multiple of the champion's.",
    )
    resamples: int = Field(
        10_000, ge=1000, le=1_000_000, description="Draws of each paired bootstrap."
    )
    seed: int = Field(20, ge=0, le=2**31 - 1, description="Seed of the bootstrap (integer).")
    allow_inconclusive: bool = Field(
        False,
        description="Let the check `gate`, and so the run, pass without a verdict. Nothing is"
        " promoted either way.",
    )
