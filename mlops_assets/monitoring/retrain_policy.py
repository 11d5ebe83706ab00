"""When a retraining may start by itself: never twice for one reason, never in a storm.

Whatever starts one (drift, new feedback) shares one cooldown and one daily cap, and none starts
while an earlier candidate still waits for people or is on its way to users: its traffic will tell
whether another is needed. A retraining ends with a request for approval; it promotes nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.monitoring.drift.findings import BUSINESS, DRIFT, NO_VERDICT
from mlops_assets.monitoring_refs import DriftReportRef


class RetrainPolicy(BaseModel):
    """Bounds on retrainings that start by themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retrain_cooldown_hours: float = Field(
        12.0,
        ge=0,
        le=24 * 90,
        description="Hours after a retraining that started by itself in which no other does.",
    )
    retrain_daily_cap: int = Field(
        2,
        ge=0,
        le=100,
        description="Most retrainings that may start by themselves within 24 hours; 0: none.",
    )
    retrain_min_records: int = Field(
        200, ge=1, le=100_000_000, description="Drift over fewer records starts no retraining."
    )
    retrain_on_business: bool = Field(
        False,
        description="Whether business metrics alone (failures, times, cost, votes) start one: new"
        " data mends none of them for certain.",
    )
    retrain_feedback_rows: int = Field(
        200,
        ge=1,
        le=100_000_000,
        description="New training rows from feedback that start a retraining (rows).",
    )
    retrain_drift_rows: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="New training rows from feedback without which drift starts no retraining: from"
        " the same data comes the same candidate (rows); 0 asks for none.",
    )


def why_no_drift(policy: RetrainPolicy, report: DriftReportRef, new_rows: int) -> str | None:
    """Why this verdict is no reason to retrain, or None. ``new_rows`` are those that feedback gave
    since the data was last read."""
    if report.verdict == NO_VERDICT:
        return (
            f"the latest report gives no verdict over {report.records:,} records: its page says why"
        )
    if report.verdict != DRIFT:
        return "the latest verdict is no drift"
    drifted = {layer for layer, verdict in report.layers.items() if verdict == DRIFT}
    if drifted == {BUSINESS} and not policy.retrain_on_business:
        return f"business metrics alone got worse ({', '.join(report.columns)})"
    if report.records < policy.retrain_min_records:
        return f"{report.records:,} records are fewer than {policy.retrain_min_records:,}"
    if new_rows < (least := policy.retrain_drift_rows):
        return (
            f"there is drift, but {new_rows:,} new rows to learn from it are fewer than {least:,}"
        )
    return None


def why_no_feedback(policy: RetrainPolicy, new_rows: int) -> str | None:
    """Why so many new rows from feedback are no reason to retrain, or None."""
    if new_rows < (least := policy.retrain_feedback_rows):
        return f"{new_rows:,} new rows from feedback are fewer than {least:,}"
    return None


def why_not_now(policy: RetrainPolicy, earlier: Sequence[datetime], now: datetime) -> str | None:
    """Why no retraining may start by itself at this moment, whatever the reason for it, or None.

    ``earlier`` are the times at which retrainings started by themselves, in any order.
    """
    cooldown = timedelta(hours=policy.retrain_cooldown_hours)
    if earlier and (ready := max(earlier) + cooldown) > now:
        return f"cooling down until {ready:%Y-%m-%d %H:%M:%S} UTC"
    day = [started for started in earlier if started > now - timedelta(hours=24)]
    if len(day) >= policy.retrain_daily_cap:
        return f"{len(day)} retrainings within 24 hours are the daily cap"
    return None
