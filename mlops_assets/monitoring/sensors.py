"""What starts by itself: a look at new traffic, and retrainings, within their bounds.

Nothing here promotes. A retraining ends in a request for approval, and people answer it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.monitoring.candidate_underway import find_underway
from mlops_assets.monitoring.drift_settings import DriftSettings
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring.feedback.versions import feedback_directory, new_rows_since
from mlops_assets.monitoring.log.new_requests import count_new, read_position
from mlops_assets.monitoring.log.segments import resolve
from mlops_assets.monitoring.log_settings import PredictionLogSettings
from mlops_assets.monitoring.retrain_policy import why_no_drift, why_no_feedback, why_not_now
from mlops_assets.monitoring_refs import DriftReportRef, FeedbackRowsRef, PredictionLogRef
from mlops_assets.profiles import PROJECT, asset_config, model_name
from mlops_assets.refs import RawDatasetRef
from mlops_assets.retraining_notes import LastRetraining, Note, write_note
from mlops_assets.sensor_interval import sensor_seconds

TRIGGER, REASON = "mlops/trigger", "mlops/reason"
RUN_KEY = "dagster/run_key"
BY_ITSELF = ("drift", "feedback", "data")
"""Triggers of `retrain` that no person pressed."""
MOST_NAMED = 4
"""Columns that drifted, in the reason of a run."""
LONGEST_COOLDOWN = timedelta(days=90)
UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


@dg.sensor(
    job_name="monitor",
    minimum_interval_seconds=sensor_seconds(60),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the job monitor when enough requests were logged since the last look.",
)
def traffic_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Counts what stands in the log behind what the latest prediction log has read."""
    home = Home.from_environment()
    seen = home.latest("prediction_log")
    if not isinstance(seen, PredictionLogRef):
        return dg.SkipReason("There is no prediction log yet: run the job `lineage`.")
    if context.instance.get_runs_count(dg.RunsFilter(job_name="monitor", statuses=UNDER_WAY)):
        return dg.SkipReason("A run of `monitor` is under way.")
    settings = PredictionLogSettings(**asset_config("prediction_log"))
    enough = settings.monitor_after_requests
    try:
        directory = resolve(settings.directory, PROJECT)
        new = count_new(directory, read_position(home.store, seen), enough)
    except LineageError as error:
        return dg.SkipReason(str(error))
    if new < enough:
        return dg.SkipReason(f"{new:,} new requests are fewer than {enough:,}.")
    # One that fails is tried again within the hour, not at every tick.
    hour = f"{datetime.now(UTC):%Y-%m-%dT%H}"
    why = f"{enough:,} requests were logged since the latest prediction log"
    return dg.RunRequest(
        run_key=f"traffic:{seen.artifact.key}:{hour}", tags={TRIGGER: "traffic", REASON: why}
    )


@dg.sensor(
    job_name="retrain",
    minimum_interval_seconds=sensor_seconds(60),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the job retrain on drift in enough records, within cooldown and cap.",
)
def drift_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Reads the latest drift report; drift starts a retraining, it never promotes."""
    home = Home.from_environment()
    report = home.latest("drift_report")
    if not isinstance(report, DriftReportRef):
        return dg.SkipReason("There is no drift report yet: run the job `monitor`.")
    settings = DriftSettings(**asset_config("drift_report"))
    why = f"drift in {_named(report.columns)} over {report.records:,} records"
    request = dg.RunRequest(
        run_key=f"drift:{report.artifact.key}", tags={TRIGGER: "drift", REASON: why}
    )
    try:
        no_reason = why_no_drift(settings, report, _new_rows(home))
    except LineageError as error:
        no_reason = str(error)
    return _within_bounds(context, home, settings, no_reason, request)


@dg.sensor(
    job_name="retrain",
    minimum_interval_seconds=sensor_seconds(60),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the job retrain on enough new rows of feedback, within cooldown and cap.",
)
def feedback_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Counts the rows in force that the data read last did not have."""
    if not asset_config("raw_dataset").get("feedback"):
        return dg.SkipReason("The profile learns from no feedback: raw_dataset names no directory.")
    home, settings = Home.from_environment(), DriftSettings(**asset_config("drift_report"))
    latest = home.latest("feedback_rows")
    if not isinstance(latest, FeedbackRowsRef):
        return dg.SkipReason("Nobody has looked at feedback yet: run the job `monitor`.")
    try:
        new_rows = _new_rows(home)
    except LineageError as error:
        return dg.SkipReason(str(error))
    request = dg.RunRequest(
        run_key=f"feedback:{latest.version}",
        tags={TRIGGER: "feedback", REASON: f"{new_rows:,} new rows from feedback"},
    )
    return _within_bounds(context, home, settings, why_no_feedback(settings, new_rows), request)


def _named(columns: Sequence[str]) -> str:
    """The first columns by name, the others by their number."""
    more = len(columns) - MOST_NAMED
    return ", ".join(columns[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _new_rows(home: Home) -> int:
    """Training rows of feedback that the data read last did not have."""
    seen = home.latest("raw_dataset")
    directory = feedback_directory(FeedbackSpec(**asset_config("feedback_rows")).directory)
    return new_rows_since(directory, seen.version if isinstance(seen, RawDatasetRef) else "")


def _within_bounds(
    context: dg.SensorEvaluationContext,
    home: Home,
    settings: DriftSettings,
    no_reason: str | None,
    request: dg.RunRequest,
) -> dg.RunRequest | dg.SkipReason:
    """The request where there is a reason for it and the bounds leave room; and a note of either.

    ``no_reason`` is why what the sensor saw is none.
    """
    now = datetime.now(UTC)
    earlier = _started_by_themselves(context.instance, now)
    why = no_reason or why_not_now(settings, [run.create_timestamp for run in earlier], now)
    why = why or _already(earlier, request)
    try:
        why = why or find_underway(home, model_name(), now)
    except LineageError as error:
        why = str(error)
    said = f"No retraining: {why}." if why else f"Retraining: {request.tags[REASON]}."
    at = now.isoformat(timespec="seconds")
    write_note(home, Note(context.sensor_name, at, said, _last(earlier)))
    return dg.SkipReason(said) if why else request


def _started_by_themselves(instance: dg.DagsterInstance, now: datetime) -> Sequence[dg.RunRecord]:
    """Runs of `retrain` that nobody pressed, newest first, as far back as a cooldown reaches.

    A second attempt at a run, which Dagster makes when its process died, is no further one.
    """
    ours = dg.RunsFilter(
        job_name="retrain",
        tags={TRIGGER: list(BY_ITSELF)},
        created_after=now - LONGEST_COOLDOWN,
    )
    records = instance.get_run_records(ours)
    return [record for record in records if record.dagster_run.parent_run_id is None]


def _already(earlier: Sequence[dg.RunRecord], request: dg.RunRequest) -> str | None:
    """Dagster passes over a request with the key of an earlier run, however that ended."""
    same = (
        run.dagster_run for run in earlier if run.dagster_run.tags.get(RUN_KEY) == request.run_key
    )
    return next((f"run {run.run_id[:8]} had the same reason" for run in same), None)


def _last(earlier: Sequence[dg.RunRecord]) -> LastRetraining | None:
    if not earlier:
        return None
    run, tags = earlier[0].dagster_run, earlier[0].dagster_run.tags
    at = earlier[0].create_timestamp.isoformat(timespec="seconds")
    return LastRetraining(at, run.run_id, tags[TRIGGER], tags.get(REASON, ""))
