"""What starts by itself: a retraining when production has drifted, within its bounds."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from mlops_assets.home import Home
from mlops_assets.monitoring.drift_settings import DriftSettings
from mlops_assets.monitoring.retrain_policy import why_not
from mlops_assets.profiles import asset_config
from mlops_assets.refs import DriftReportRef


@dg.sensor(
    job_name="retrain",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts `retrain` on a drift verdict, within cooldown, sample and daily cap.",
)
def drift_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Reads the latest drift report; drift starts a retraining, it never promotes."""
    report = Home.from_environment().latest("drift_report")
    if not isinstance(report, DriftReportRef):
        return dg.SkipReason("There is no drift report yet: run the job `monitor`.")
    now = datetime.now(UTC)
    settings = DriftSettings(**asset_config("drift_report"))
    if reason := why_not(settings, report, _retrains(context.instance, now), now):
        return dg.SkipReason(f"No retraining: {reason}.")
    columns = ", ".join(report.columns)
    reason = f"drift in {columns} over {report.records} records"
    return dg.RunRequest(
        run_key=f"drift:{report.artifact.key}",
        tags={"mlops/trigger": "drift", "mlops/reason": reason},
    )


def _retrains(instance: dg.DagsterInstance, now: datetime) -> list[datetime]:
    """When drift started a retraining, as far back as the longest cooldown reaches."""
    ours = dg.RunsFilter(
        job_name="retrain",
        tags={"mlops/trigger": "drift"},
        created_after=now - timedelta(days=90),
    )
    return [record.create_timestamp for record in instance.get_run_records(ours)]
