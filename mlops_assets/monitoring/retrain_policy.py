"""When a drift verdict may start a retraining: never twice for one reason, never in a storm."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.refs import DriftReportRef

DRIFT = "drift"


class RetrainPolicy(BaseModel):
    """Bounds on retrainings that drift starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retrain_cooldown_hours: float = Field(
        12.0, ge=0, le=24 * 90, description="Hours between two retrainings that drift started."
    )
    retrain_daily_cap: int = Field(
        2, ge=0, le=100, description="Most retrainings that drift may start within 24 hours."
    )
    retrain_min_records: int = Field(
        200, ge=1, le=100_000_000, description="Fewer records in the log start no retraining."
    )


def why_not(
    policy: RetrainPolicy, report: DriftReportRef, earlier: Sequence[datetime], now: datetime
) -> str | None:
    """The reason not to retrain now, or None.

    ``earlier`` are the times at which drift started a retraining, in any order.
    """
    if report.verdict != DRIFT:
        return f"the latest verdict is {report.verdict.replace('_', ' ')}"
    if report.records < policy.retrain_min_records:
        return f"{report.records} records are fewer than {policy.retrain_min_records}"
    cooldown = timedelta(hours=policy.retrain_cooldown_hours)
    if earlier and (ready := max(earlier) + cooldown) > now:
        return f"cooling down until {ready:%Y-%m-%d %H:%M} UTC"
    day = [started for started in earlier if started > now - timedelta(hours=24)]
    if len(day) >= policy.retrain_daily_cap:
        return f"{len(day)} retrainings within 24 hours are the daily cap"
    return None
