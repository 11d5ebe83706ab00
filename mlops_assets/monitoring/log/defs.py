"""The assets of production's log: its parts, and the sample of it that MLflow shows."""

from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.log import prediction_log, sampled_traces, window
from mlops_assets.monitoring.log.trace_sample import TraceSampleSpec
from mlops_assets.monitoring.log_settings import PredictionLogSettings
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.profiles import PROJECT
from mlops_assets.resources import Workspace, table
from mlops_assets.tracking import ui_address


class PredictionLogConfig(PredictionLogSettings, dg.Config):
    """Settings of the prediction log, and when new traffic is looked at."""


class TraceSampleConfig(TraceSampleSpec, dg.Config):
    """Settings of the traces that MLflow shows."""


@dg.asset(
    name="prediction_log",
    group_name="monitoring",
    kinds={"parquet"},
    owners=["team:ml-platform"],
    code_version=code_digest(prediction_log.__name__),
    deps=["raw_dataset"],
)
def prediction_log_asset(
    context: dg.AssetExecutionContext, config: PredictionLogConfig, workspace: Workspace
) -> dg.MaterializeResult[PredictionLogRef]:
    """What production was asked and what it answered.

    The JSONL segments of a directory, read up to the size they have now and compacted to Parquet:
    each once, and only the last, which is still written to, again. Torn and unreadable lines are
    left out and counted by reason; an empty log is healthy. It stands after `raw_dataset` only
    because the samples that we ship are built with the data.
    """
    with workspace.stage(context) as store:
        ref = prediction_log.collect(store, config, PROJECT)
        path = store.path(ref.artifact)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(ref.artifact.digest),
        metadata=_log_metadata(ref, path, config.directory),
    )


@dg.asset(
    name="sampled_traces",
    group_name="monitoring",
    kinds={"mlflow"},
    owners=["team:ml-platform"],
    code_version=code_digest(sampled_traces.__name__),
)
def sampled_traces_asset(
    context: dg.AssetExecutionContext,
    config: TraceSampleConfig,
    workspace: Workspace,
    prediction_log: PredictionLogRef,
) -> dg.MaterializeResult[None]:
    """A sample of the requests as traces in MLflow, with what users said of them.

    Drawn by a hash of their ids, and those with votes besides; texts are redacted. Votes are
    attached whenever they come. Nothing is written twice.
    """
    with workspace.stage(context) as store:
        traced = sampled_traces.trace_sample(workspace.home, store, prediction_log, config)
    return dg.MaterializeResult(metadata=_traces_metadata(traced))


def _log_metadata(ref: PredictionLogRef, path: Path, directory: str) -> dict[str, Any]:
    summary = ref.artifact.summary
    skipped = [{"reason": reason, "lines": lines} for reason, lines in summary["skipped"].items()]
    return {
        "dagster/row_count": ref.records,
        "skipped": table(skipped, {"reason": "string", "lines": "int"}),
        "skipped_lines": ref.unreadable,
        "segments": summary["segments"],
        "answered_in_all": summary["answered"],
        "size_mib": round(summary["bytes"] / 2**20, 3),
        "size_as_parquet_mib": round(summary["parquet_bytes"] / 2**20, 3),
        "period": prediction_log.shown_period(summary),
        "releases": table(
            prediction_log.release_rows(summary), {"release": "string", "answered": "int"}
        ),
        "directory": directory,
        "parts": dg.MetadataValue.path(path / window.PARTS),
        "from_store": bool(ref.artifact.reused),
    }


def _traces_metadata(traced: sampled_traces.Traced) -> dict[str, Any]:
    page = f"{ui_address()}/#/experiments/{traced.experiment}/traces"
    rows = sampled_traces.trace_rows(traced)
    metadata: dict[str, Any] = {
        "written": len(traced.written),
        "written_before": traced.known,
        "votes_attached": traced.attached,
        "traces": table(rows, sampled_traces.TRACE_COLUMNS),
        "from_store": not (traced.written or traced.attached),
    }
    if traced.experiment:
        metadata["mlflow"] = dg.MetadataValue.url(page)
    if rows:
        newest = f"{page}?selectedEvaluationId={rows[0]['trace']}"
        metadata["newest_trace"] = dg.MetadataValue.url(newest)
    return metadata
