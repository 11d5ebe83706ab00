"""The assets of drift: what production is compared with, and how far it has moved."""

import base64
import json
from typing import Any

import dagster as dg

from mlops_assets.artifacts import SHORT, ArtifactStore
from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.drift import reference, verdict
from mlops_assets.monitoring.drift.drift_page import (
    COLUMN_TABLE,
    LAYER_TABLE,
    LEFT_OUT_TABLE,
    changes_text,
    column_rows,
    layer_rows,
    left_out_rows,
)
from mlops_assets.monitoring.drift.spec import ReferenceSpec
from mlops_assets.monitoring.drift_settings import DriftSettings
from mlops_assets.monitoring.quality.answer_quality import read_findings
from mlops_assets.monitoring_refs import (
    AnswerQualityRef,
    DriftReferenceRef,
    DriftReportRef,
    PredictionLogRef,
)
from mlops_assets.refs import (
    SplitsRef,
)
from mlops_assets.resources import Workspace, table

OWNERS = ["team:ml-platform"]


class DriftReferenceConfig(ReferenceSpec, dg.Config):
    """Settings of what production is compared with."""


class DriftConfig(DriftSettings, dg.Config):
    """Settings of the drift report, and bounds on the retrainings that it may start."""


@dg.asset(
    name="drift_reference",
    group_name="monitoring",
    kinds={"arrow"},
    owners=OWNERS,
    code_version=code_digest(reference.__name__),
)
def drift_reference_asset(
    context: dg.AssetExecutionContext,
    config: DriftReferenceConfig,
    workspace: Workspace,
    dataset_splits: SplitsRef,
) -> dg.MaterializeResult[DriftReferenceRef]:
    """What production is compared with: the newest rows that the release in force learnt from.

    The rows, a sketch of each of their columns, and the words of the train split. Before the
    first release they are of the latest splits.
    """
    with workspace.stage(context) as store:
        release = reference.release_in_force(workspace.home.ledger.entries(), workspace.model)
        splits = reference.splits_of(store, release, dataset_splits)
        ref = reference.make_reference(store, splits, release, config)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(f"{ref.artifact.digest}.{ref.release[:SHORT]}"),
        metadata=_reference_metadata(ref),
    )


@dg.asset(
    name="drift_report",
    group_name="monitoring",
    kinds={"evidently"},
    owners=OWNERS,
    code_version=code_digest(verdict.__name__),
)
def drift_report_asset(
    context: dg.AssetExecutionContext,
    config: DriftConfig,
    workspace: Workspace,
    drift_reference: DriftReferenceRef,
    prediction_log: PredictionLogRef,
    answer_quality: AnswerQualityRef,
) -> dg.MaterializeResult[DriftReportRef]:
    """Whether production still resembles what the release was trained on, and answers as well.

    Compares what is asked (lengths, vocabulary, slices, meaning) and what is answered (class mix
    or length, refusals, empty and invalid answers) with the reference, and takes in the findings
    of answer quality. A column has drifted when its effect reaches the threshold and its
    significance survives correction across all columns. Too few records give no verdict.
    """
    with workspace.stage(context) as store:
        worse = read_findings(store, answer_quality)
        ref = verdict.report_drift(store, drift_reference, prediction_log, config, worse)
        metadata = _drift_metadata(store, ref)
    return dg.MaterializeResult(
        value=ref, data_version=dg.DataVersion(ref.artifact.digest), metadata=metadata
    )


def _reference_metadata(ref: DriftReferenceRef) -> dict[str, Any]:
    summary = ref.artifact.summary
    return {
        "dagster/row_count": ref.rows,
        "train_rows": summary["train_rows"],
        "words": summary["words"],
        "period": " to ".join(summary[end] or "-" for end in ("first", "last")),
        "release": ref.release or "none in force",
        **ref.versions.by_name(),
        "from_store": bool(ref.artifact.reused),
    }


def _drift_metadata(store: ArtifactStore, ref: DriftReportRef) -> dict[str, Any]:
    path = store.path(ref.artifact)
    report = json.loads((path / verdict.REPORT).read_bytes())
    drawn = path / verdict.DISTRIBUTIONS
    picture = base64.b64encode((path / verdict.PLOT).read_bytes()).decode()
    return {
        "verdict": ref.verdict,
        "reason": report["reason"],
        "layers": table(layer_rows(report), LAYER_TABLE),
        "columns": table(column_rows(report), COLUMN_TABLE),
        "left_out": table(left_out_rows(report), LEFT_OUT_TABLE),
        "changes": dg.MetadataValue.md(changes_text(report)),
        "effects": dg.MetadataValue.md(
            f"![effect of each column](data:image/png;base64,{picture})"
        ),
        "report": dg.MetadataValue.path(path / verdict.PAGE),
        "distributions": dg.MetadataValue.path(drawn)
        if drawn.is_file()
        else "none: too few records",
        "json": dg.MetadataValue.path(path / verdict.REPORT),
        "records": ref.records,
        **ref.versions.by_name(),
        "from_store": bool(ref.artifact.reused),
    }
