"""Jobs and schedules over the asset groups, and the alert of a failed run.

A job is a selection of groups; the profile gives its default settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mlops_assets.home import Home
from mlops_assets.profiles import restrict
from mlops_assets.resources import Alerts, fail_mlflow_run

JOBS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "lineage": (
        "The whole life of the model, from the raw data to the drift report.",
        ("dataset", "training", "evaluation", "promotion", "monitoring"),
    ),
    "retrain": (
        "From the data to a promotion decision; what the sensors start.",
        ("dataset", "training", "evaluation", "promotion"),
    ),
    "evaluate": (
        "Measure the latest adapter beside base, champion and baselines.",
        ("evaluation",),
    ),
    "monitor": ("Read production's records and report drift.", ("monitoring",)),
}

DAILY = {"evaluate": "0 3 * * *", "monitor": "0 4 * * *"}


def make_jobs(
    assets: Sequence[dg.AssetsDefinition], profile: Mapping[str, Any]
) -> list[Any]:  # Dagster does not export the type of an unresolved job
    """One job for each name in ``JOBS``, with the profile's settings of its own assets."""
    groups = {
        key.path[-1]: group for item in assets for key, group in item.group_names_by_key.items()
    }
    return [
        dg.define_asset_job(
            name,
            selection=dg.AssetSelection.groups(*selected),
            description=description,
            config=restrict(
                profile, [asset for asset, group in groups.items() if group in selected]
            ),
        )
        for name, (description, selected) in JOBS.items()
    ]


SCHEDULES = [
    dg.ScheduleDefinition(
        name=f"daily_{job}",
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs `{job}` every day.",
    )
    for job, cron in DAILY.items()
]


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells people of a failed run, and sets its MLflow run to FAILED.",
)
def run_failure_alert(context: dg.RunFailureSensorContext, alerts: Alerts) -> None:
    """Also reached when the run's process was killed and could not say so itself."""
    run = context.dagster_run
    fail_mlflow_run(Home.from_environment(), run.run_id)
    alerts.send(f"Run {run.run_id[:8]} of {run.job_name} failed: {context.failure_event.message}")
