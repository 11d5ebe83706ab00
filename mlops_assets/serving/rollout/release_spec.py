"""What may be set about a release: its steps, its samples, its margins and its limits."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_LOSS = 0.5
"""Widest margin on a share that any stage may use, however few users the next one reaches."""


class ReleaseSpec(BaseModel):
    """How what was approved reaches users: in shadow, then to a growing share of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shadow_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of live requests that is mirrored to the candidate before any user"
        " gets its answers; 0 leaves the shadow stage out.",
    )
    shadow_minimum_pairs: int = Field(
        100, ge=1, le=1_000_000, description="Mirrored requests before the first users (requests)."
    )
    shadow_maximum_pairs: int = Field(
        5000,
        ge=1,
        le=10_000_000,
        description="Mirrored requests after which a shadow without a verdict is given up.",
    )
    shadow_tokens_per_day: int = Field(
        1_000_000,
        ge=0,
        le=10**12,
        description="Tokens in and out that mirrored requests may use in a day (tokens).",
    )
    canary_steps: list[int] = Field(
        [5, 25, 50],
        min_length=1,
        max_length=10,
        description="Percent of the users that get the candidate, step by step, before all do.",
    )
    hold_s: float = Field(
        600.0, ge=0, le=604_800, description="Each stage lasts at least this long (seconds)."
    )
    minimum_requests: int = Field(
        100,
        ge=10,
        le=10_000_000,
        description="Requests that the candidate has answered in a stage before the next.",
    )
    maximum_requests: int = Field(
        50_000,
        ge=10,
        le=100_000_000,
        description="Requests of the candidate in a canary stage after which one without a"
        " verdict is rolled back.",
    )
    maximum_stage_s: float = Field(
        86_400.0,
        gt=0,
        le=31_536_000,
        description="Time after which a stage without a verdict is rolled back (seconds).",
    )
    deadline_s: float = Field(
        259_200.0,
        gt=0,
        le=31_536_000,
        description="Time after which the whole rollout is rolled back (seconds).",
    )
    alpha: float = Field(
        0.04,
        ge=0.0001,
        le=0.2,
        description="Probability that a candidate as good as the champion is rolled back by a"
        " test, over the whole rollout and however often it is looked at.",
    )
    release_alpha: float = Field(
        0.05,
        ge=0.0001,
        le=0.2,
        description="Probability that a candidate worse by a margin is let on all the same.",
    )
    error_margin: float = Field(
        0.01,
        gt=0,
        le=MOST_LOSS,
        description="More failed requests than the champion that must be ruled out before all"
        " users get the candidate (share of requests).",
    )
    latency_margin: float = Field(
        0.2,
        gt=0,
        le=10,
        description="Slow-down at the median and the 95th percentile that must be ruled out;"
        " shown to be larger it rolls back (0.2: a fifth slower).",
    )
    quality_margin: float = Field(
        0.05,
        gt=0,
        le=MOST_LOSS,
        description="Loss of the mean quality score that must be ruled out (score, 0 to 1).",
    )
    quality_required: bool = Field(
        False,
        description="Hold the canary until quality is shown, so that one without scores ends in"
        " a rollback; else quality can only roll back. The shadow never waits: nobody votes there.",
    )
    empty_spike: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="More empty answers than the champion's that roll back (share of answers).",
    )
    refusal_spike: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="More refusals than the champion's that roll back (share of answers).",
    )
    maximum_crashes: int = Field(
        0, ge=0, le=1000, description="Deaths of the candidate's engine that are tolerated."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "ReleaseSpec":
        """Raises ValueError for steps or bounds that contradict each other."""
        steps = self.canary_steps
        if steps != sorted(set(steps)) or not 1 <= steps[0] <= steps[-1] <= 99:
            raise ValueError("canary_steps must rise, from 1 at least to 99 at most")
        for low, high in (
            ("shadow_minimum_pairs", "shadow_maximum_pairs"),
            ("minimum_requests", "maximum_requests"),
            ("hold_s", "maximum_stage_s"),
            ("maximum_stage_s", "deadline_s"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not exceed {high}")
        return self

    def next_percent(self, percent: int) -> int:
        """Share of users after the stage at ``percent``; 0 is the shadow, 100 everybody."""
        return next((step for step in self.canary_steps if step > percent), 100)

    def widening(self, percent: int) -> float:
        """By how much the margins of the stage at ``percent`` are wider than those for everybody.

        The next stage's share of users times its margin is the same number at every stage: what
        users as a whole may lose at most.
        """
        return 100 / self.next_percent(percent)
