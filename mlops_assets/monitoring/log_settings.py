"""What may be set of the prediction log: which records to read, and when to look again."""

from pydantic import Field

from mlops_assets.monitoring.log.prediction_log import PredictionLogSpec


class PredictionLogSettings(PredictionLogSpec):
    """Settings of the prediction log, and when new traffic starts `monitor` by itself."""

    monitor_after_requests: int = Field(
        1000,
        ge=1,
        le=100_000_000,
        description="Requests logged since the latest prediction log that start `monitor`.",
    )
