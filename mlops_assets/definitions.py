"""The Dagster definitions: the only module that knows all stages."""

import dagster as dg

from mlops_assets.console import console, say_errors_plainly
from mlops_assets.dataset import defs as dataset
from mlops_assets.evaluation import defs as evaluation
from mlops_assets.jobs import (
    SCHEDULES,
    champion_changed,
    champion_restored,
    make_jobs,
    make_reconcile_job,
    run_failure_alert,
)
from mlops_assets.monitoring import defs as monitoring
from mlops_assets.profiles import check_settings, load_profile
from mlops_assets.promotion import approval
from mlops_assets.promotion import defs as promotion
from mlops_assets.resources import RESOURCES, settings_of
from mlops_assets.serving import defs as serving
from mlops_assets.training import defs as training

LINEAGE = (dataset, training, evaluation, promotion, serving, monitoring)

say_errors_plainly()


def lineage_assets() -> list[dg.AssetsDefinition]:
    """Every asset of every stage."""
    return [
        asset
        for stage in LINEAGE
        for asset in stage.defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
    ]


def _build() -> dg.Definitions:
    assets = lineage_assets()
    profile = load_profile()
    check_settings(profile, settings_of(assets))
    automation = dg.Definitions(
        jobs=[*make_jobs(assets, profile), make_reconcile_job(approval.reconcile)],
        schedules=SCHEDULES,
        sensors=[run_failure_alert, champion_changed, champion_restored],
        resources=RESOURCES,
        loggers={"console": console},
    )
    return dg.Definitions.merge(*(stage.defs for stage in LINEAGE), automation)


defs = _build()
