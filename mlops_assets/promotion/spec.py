"""The policy of approval: who may approve, how many it takes, and what needs no person."""

import re
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.approvers import NAME

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

    @property
    def automatic(self) -> bool:
        """Whether the key of a machine may approve."""
        return self.risk_class in self.automatic_for

    @model_validator(mode="after")
    def _can_be_met(self) -> "PromotionSpec":
        if strange := [name for name in self.approvers if not re.fullmatch(NAME, name)]:
            raise ValueError(f"{', '.join(strange)}: no name of an approver")
        named = len(set(self.approvers)) + bool(self.automatic_for)
        if self.approvers and named < self.required_approvals:
            raise ValueError("approvers are fewer than required_approvals")
        return self

    @field_validator("automatic_for")  # Dagster knows no list of a Literal
    @classmethod
    def _are_classes(cls, value: list[str]) -> list[str]:
        if unknown := set(value) - set(get_args(RiskClass)):
            raise ValueError(f"{', '.join(sorted(unknown))}: no risk class")
        return value


class RetentionSpec(BaseModel):
    """How much is kept beside what has to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_newest: int = Field(
        5,
        ge=0,
        le=100_000,
        description="Newest artifacts of each kind, and newest registered versions, that stay.",
    )
    keep_days: int = Field(
        30, ge=0, le=36_500, description="Days for which everything stays, whoever names it."
    )
