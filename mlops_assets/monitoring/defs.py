"""The stage's assets: what users corrected, and those that have definitions of their own."""

from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.artifacts import SHORT
from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.drift.defs import drift_reference_asset, drift_report_asset
from mlops_assets.monitoring.feedback import feedback_rows, feedback_table, row_files
from mlops_assets.monitoring.feedback.feedback_spec import FeedbackSpec
from mlops_assets.monitoring.log.defs import prediction_log_asset, sampled_traces_asset
from mlops_assets.monitoring.quality.defs import answer_quality_asset
from mlops_assets.monitoring.sensors import drift_sensor, feedback_sensor, traffic_sensor
from mlops_assets.monitoring_refs import FeedbackRowsRef, PredictionLogRef
from mlops_assets.refs import (
    SplitsRef,
)
from mlops_assets.resources import Workspace, table

OWNERS = ["team:ml-platform"]


class FeedbackConfig(FeedbackSpec, dg.Config):
    """Settings of the rows that feedback gives."""


@dg.asset(
    name="feedback_rows",
    group_name="monitoring",
    kinds={"dvc", "jsonl"},
    owners=OWNERS,
    code_version=code_digest(feedback_rows.__name__),
)
def feedback_rows_asset(
    context: dg.AssetExecutionContext,
    config: FeedbackConfig,
    workspace: Workspace,
    prediction_log: PredictionLogRef,
    dataset_splits: SplitsRef,
) -> dg.MaterializeResult[FeedbackRowsRef]:
    """Corrections and labels as rows to learn from and cases to ask, a DVC version at a time.

    Scrubbed, deduplicated, quarantined where they repeat an answer of a model or what is measured
    with, and capped by person. The next `raw_dataset` reads the rows, `eval_report` asks the cases.
    """
    with workspace.stage(context) as store:
        ref = feedback_rows.collect(workspace.home, prediction_log, dataset_splits, config)
        metadata = _feedback_metadata(ref, store.path(ref.artifact), config.directory)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(f"{ref.artifact.digest}.{ref.version[:SHORT]}"),
        metadata=metadata,
    )


def _feedback_metadata(ref: FeedbackRowsRef, path: Path, directory: str) -> dict[str, Any]:
    summary = ref.artifact.summary
    return {
        "dagster/row_count": ref.training,
        "cases": ref.cases,
        "people": summary["people"],
        "version": ref.version or "none yet",
        "kinds": table(feedback_table.kind_rows(summary), feedback_table.KIND_TABLE),
        "quarantined": table(feedback_table.reason_rows(summary), feedback_table.REASON_TABLE),
        "quarantine": dg.MetadataValue.path(str(path / row_files.QUARANTINE)),
        "directory": directory,
        "from_store": bool(ref.artifact.reused),
    }


defs = dg.Definitions(
    assets=[
        prediction_log_asset,
        sampled_traces_asset,
        answer_quality_asset,
        feedback_rows_asset,
        drift_reference_asset,
        drift_report_asset,
    ],
    sensors=[traffic_sensor, drift_sensor, feedback_sensor],
)
