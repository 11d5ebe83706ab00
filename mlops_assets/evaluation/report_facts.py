"""What a report says beside the scores: ragas, cost, settings and provenance."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mlops_assets.artifacts import Artifact
from mlops_assets.evaluation import scoring
from mlops_assets.evaluation.measuring import Candidate, Measured
from mlops_assets.evaluation.records import RECORDS
from mlops_assets.evaluation.spec import EvaluationSpec


def facts(candidate: Candidate, measured: Measured, spec: EvaluationSpec) -> dict[str, Any]:
    """The part of ``report.json`` that compares no answers."""
    timings = {name: artifact.summary for name, artifact in measured.predictions.items()}
    latency = {name: _part(timings.get(name), "latency_") for name in scoring.MODELS}
    if measured.side_by_side:
        latency |= measured.side_by_side.summary
    return {
        "ragas": _ragas(measured.ragas),
        "latency": latency,
        "tokens": {name: _part(timings.get(name), "", "latency_") for name in scoring.MODELS},
        "answers": "json" if candidate.splits.labels else "text",
        "settings": spec.model_dump(mode="json"),
        "candidate": candidate.bundle.digest,
        "champion": candidate.champion.digest if candidate.champion else None,
        "versions": asdict(candidate.bundle.versions),
        "records": RECORDS,
        "provenance": {
            "base_name": candidate.base.name,
            "base_parameters": candidate.base.parameters,
            "base": candidate.bundle.base.digest,
            "adapter": candidate.bundle.adapter.digest,
            "chat_template": candidate.bundle.chat_template,
            "prompt": candidate.bundle.prompt_digest,
            "splits": candidate.splits.artifact.digest,
            "trained_by_mlflow_run": candidate.adapter.mlflow_run,
            "trained_by_dagster_run": candidate.adapter.dagster_run,
        },
    }


def _ragas(scored: Mapping[str, Artifact]) -> dict[str, Any]:
    summaries = {name: artifact.summary for name, artifact in scored.items()}
    return {
        "rows": summaries["tuned"]["rows"],
        "metrics": {
            metric: {
                name: summaries[name]["scores"][metric] if name in summaries else None
                for name in scoring.MODELS
            }
            for metric in summaries["tuned"]["scores"]
        },
    }


def _part(
    summary: Mapping[str, Any] | None, prefix: str, without: str = "-"
) -> dict[str, Any] | None:
    """The entries whose names start with ``prefix`` and not with ``without``."""
    if summary is None:
        return None
    return {
        name.removeprefix(prefix): value
        for name, value in summary.items()
        if name.startswith(prefix) and not name.startswith(without)
    }
