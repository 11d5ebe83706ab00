"""The asset of answer quality."""

import base64
from typing import Any

import dagster as dg

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.code_digest import code_digest
from mlops_assets.feedback_record import read_feedback
from mlops_assets.monitoring.quality import answer_quality, label_store
from mlops_assets.monitoring.quality.quality_page import (
    LEFT_OUT_COLUMNS,
    METADATA_COLUMNS,
    compared_with,
    draw_table,
    left_out_rows,
    metric_rows,
)
from mlops_assets.monitoring.quality.quality_spec import QualitySpec
from mlops_assets.monitoring.quality.release_in_force import find_in_force
from mlops_assets.monitoring_refs import AnswerQualityRef, PredictionLogRef
from mlops_assets.resources import Workspace, table


class QualityConfig(QualitySpec, dg.Config):
    """Settings of answer quality."""


@dg.asset(
    name="answer_quality",
    group_name="monitoring",
    kinds={"numpy"},
    owners=["team:ml-platform"],
    code_version=code_digest(answer_quality.__name__),
)
def answer_quality_asset(
    context: dg.AssetExecutionContext,
    config: QualityConfig,
    workspace: Workspace,
    prediction_log: PredictionLogRef,
) -> dg.MaterializeResult[AnswerQualityRef]:
    """Whether answers are as good as they were: what users make of them, and if they are right.

    Failures, times, cost, votes, corrections and questions asked again, against the window
    before; recorded answers on a random labelled slice, against the evaluation report of the
    release in force. Only worse counts.
    """
    home = workspace.home
    with workspace.stage(context) as store:
        labels = label_store.labels_directory(home)
        said = answer_quality.Said(
            list(read_feedback(home.feedback)),
            label_store.read_draws(labels),
            label_store.read_labels(labels),
        )
        in_force = find_in_force(store, home.ledger.entries(), workspace.model)
        ref = answer_quality.measure_quality(store, prediction_log, said, in_force, config)
        metadata = _quality_metadata(store, ref)
    return dg.MaterializeResult(
        value=ref, data_version=dg.DataVersion(ref.artifact.digest), metadata=metadata
    )


def _quality_metadata(store: ArtifactStore, ref: AnswerQualityRef) -> dict[str, Any]:
    path, content = store.path(ref.artifact), answer_quality.read_quality(store, ref)
    picture = base64.b64encode((path / answer_quality.PLOT).read_bytes()).decode()
    return {
        "requests": ref.requests,
        "compared_with": compared_with(content),
        "metrics": table(metric_rows(content), dict.fromkeys(METADATA_COLUMNS, "string")),
        "left_out": table(left_out_rows(content), dict.fromkeys(LEFT_OUT_COLUMNS, "string")),
        "over_time": dg.MetadataValue.md(
            f"![each metric over the windows](data:image/png;base64,{picture})"
        ),
        "labelled": table(*draw_table(content)),
        "report": dg.MetadataValue.path(path / answer_quality.PAGE),
        "json": dg.MetadataValue.path(path / answer_quality.QUALITY),
        "release": ref.release or "none in force",
        "from_store": bool(ref.artifact.reused),
    }
