"""Jobs and schedules over the asset groups, the alert of a failed run, the second evaluation of a
candidate whose champion was replaced, and what follows a rollback.

A job is a selection of groups; the profile gives its default settings.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import BaseModel

from mlops_assets.artifacts import LineageError
from mlops_assets.gate_alert import gate_of_run, stopped_message
from mlops_assets.home import Home
from mlops_assets.ledger import ROLLED_BACK
from mlops_assets.profiles import check_settings, restrict
from mlops_assets.reevaluation import find_outdated
from mlops_assets.resources import Alerts, fail_mlflow_run, settings_of
from mlops_assets.sensor_interval import sensor_seconds
from mlops_assets.verdicts import PASS
from mlops_assets.webhook import Message

JOBS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "lineage": (
        "The whole life of the model, from the raw data to the drift report.",
        ("dataset", "training", "evaluation", "promotion", "serving", "monitoring"),
    ),
    "retrain": (
        "From the data to a request for approval; what the sensors start.",
        ("dataset", "training", "evaluation", "promotion"),
    ),
    "train": (
        "From the data to an adapter, without judging it; what `mlops reproduce` runs.",
        ("dataset", "training"),
    ),
    "evaluate": (
        "Measure the latest adapter beside base, champion and baselines.",
        ("evaluation",),
    ),
    "reevaluate": (
        "Measure the latest adapter against a new champion; ask for approval where it passes.",
        ("evaluation", "promotion"),
    ),
    "follow_release": ("Show what users are served, and the gateway.", ("serving",)),
    "monitor": (
        "Read production's log: drift, quality of the answers, rows from feedback, traces.",
        ("monitoring",),
    ),
}

WHOLE = "lineage"
MOST_LINES = 5  # of an error's text in an alert
DAILY = {"evaluate": "0 3 * * *", "monitor": "0 4 * * *"}


def make_jobs(assets: Sequence[dg.AssetsDefinition], profile: Mapping[str, Any]) -> list[Any]:
    """One job for each name in ``JOBS``; the profile gives the default settings.

    ``lineage`` holds every asset, so its settings are a profile as it stands, and the UI's
    launchpad knows their schema. The other jobs take a whole profile too, and use of it what
    is theirs.
    """
    specs = settings_of(assets)
    return [
        dg.define_asset_job(
            name,
            selection=dg.AssetSelection.groups(*groups),
            description=description,
            config=dict(profile) if name == WHOLE else _part_of(profile, assets, groups, specs),
        )
        for name, (description, groups) in JOBS.items()
    ]


Reconcile = Callable[[Home], Mapping[str, Mapping[str, int]]]
"""Completes what was begun, and returns the registry's aliases by model."""


def make_reconcile_job(reconcile: Reconcile) -> dg.JobDefinition:
    """`mlops reconcile` as a job. It changes nothing in the home, so it runs beside any run."""

    @dg.op
    def reconcile_aliases(context: dg.OpExecutionContext) -> None:
        """Make the registry's aliases say what the ledger says."""
        try:
            aliases = reconcile(Home.from_environment())
        except LineageError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        shown = {model: dict(found) for model, found in aliases.items()}
        context.add_output_metadata({"aliases": dg.MetadataValue.json(shown)})

    @dg.job(
        name="reconcile",
        description="Make the registry's aliases follow the ledger: see docs/registry.md.",
        executor_def=dg.in_process_executor,
    )
    def reconcile_job() -> None:
        reconcile_aliases()

    return reconcile_job


def _part_of(
    profile: Mapping[str, Any],
    assets: Sequence[dg.AssetsDefinition],
    groups: Sequence[str],
    specs: Mapping[str, type[BaseModel]],
) -> dg.ConfigMapping:
    chosen = [
        key.path[-1]
        for asset in assets
        for key, group in asset.group_names_by_key.items()
        if group in groups
    ]

    def choose(given: Mapping[str, Any]) -> dict[str, Any]:
        check_settings(given, specs)
        return restrict(given or profile, chosen)

    return dg.ConfigMapping(config_fn=choose, config_schema=dict)


SCHEDULES = [
    dg.ScheduleDefinition(
        name=f"daily_{job}",
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs the job {job} every day.",
    )
    for job, cron in DAILY.items()
]


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells people of a failed run, and sets its MLflow run to FAILED.",
)
def run_failure_alert(context: dg.RunFailureSensorContext, alerts: Alerts) -> None:
    """Also reached when the run's process was killed and could not say so itself.

    A run that its gate ended is told with the criteria that did not pass.
    """
    run, home = context.dagster_run, Home.from_environment()
    fail_mlflow_run(home, run.run_id)
    gate = gate_of_run(home, run.run_id)
    if gate is not None and gate.verdict != PASS:
        alerts.send(stopped_message(run.run_id, run.job_name, gate))
    else:
        alerts.send(_failed_message(run, context.failure_event.message or ""))


def _failed_message(run: dg.DagsterRun, why: str) -> Message:
    return Message(
        title=f"Run of {run.job_name} failed",
        facts=(("Run", run.run_id[:8]), ("Job", run.job_name)),
        details=tuple(line for line in why.splitlines() if line.strip())[:MOST_LINES],
    )


@dg.sensor(
    job_name="reevaluate",
    minimum_interval_seconds=sensor_seconds(30),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the job reevaluate when another candidate became the champion meanwhile.",
)
def champion_changed(_context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Of two that promote at once one wins; this has the other meet the new champion, once."""
    try:
        found = find_outdated(Home.from_environment())
    except LineageError as error:
        return dg.SkipReason(str(error))
    if isinstance(found, str):
        return dg.SkipReason(found)
    return dg.RunRequest(
        run_key=found.key, tags={"mlops/trigger": "champion", "mlops/reason": found.reason}
    )


@dg.sensor(
    job_name="reconcile",
    minimum_interval_seconds=sensor_seconds(30),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the job reconcile after a rollback: the gateway knows no registry.",
)
def champion_restored(_context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Once for each rollback; one by hand has set the aliases already, and nothing is left."""
    try:
        entries = Home.from_environment().ledger.entries()
    except LineageError as error:
        return dg.SkipReason(str(error))
    rollbacks = [row for row in entries if row.decision.outcome == ROLLED_BACK]
    if not rollbacks:
        return dg.SkipReason("Nothing was rolled back yet.")
    last = rollbacks[-1]
    return dg.RunRequest(
        run_key=f"rollback:{last.computed}",
        tags={"mlops/trigger": "rollback", "mlops/reason": last.decision.reason[:200]},
    )
