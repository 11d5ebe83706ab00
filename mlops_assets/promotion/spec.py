"""The policy of approval: who may approve, how many it takes, and what needs no person."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

RiskClass = Literal["low", "limited", "high"]


class PromotionSpec(BaseModel):
    """What stands between a candidate that passed the gate and the alias `champion`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    required_approvals: int = Field(
        1,
        ge=1,
        le=10,
        description="How many different approvers it takes. From 2 on the author of the change"
        " counts beside somebody else only.",
    )
    request_hours: int = Field(
        72, ge=1, le=24 * 90, description="Hours until an unanswered request expires."
    )
    approvers: list[str] = Field(
        default=[],
        max_length=1000,
        description="Names on the list of approvers who may approve this model; empty: all.",
    )
    risk_class: RiskClass = Field(
        "high",
        description="What a wrong answer of this model can do: `low` (a nuisance), `limited` (costs"
        " somebody time or money), `high` (harm). Whoever owns the model says it.",
    )
    automatic_for: list[str] = Field(
        default=[],
        max_length=3,
        description="Risk classes that a key of this machine may approve; empty: people alone.",
    )

    @field_validator("automatic_for")  # Dagster knows no list of a Literal
    @classmethod
    def _are_classes(cls, value: list[str]) -> list[str]:
        if unknown := set(value) - set(get_args(RiskClass)):
            raise ValueError(f"{', '.join(sorted(unknown))}: no risk class")
        return value
