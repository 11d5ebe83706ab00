"""The asset `eval_report` and its blocking check, the absolute floor."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.artifacts import LineageError
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation import gate, page, scoring
from mlops_assets.evaluation.report import evaluate, read_report
from mlops_assets.evaluation.run_log import log_evaluation
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.refs import AdapterRef, BaseModelRef, EvalReportRef, SplitsRef
from mlops_assets.resources import Tracking, Workspace


class EvaluationConfig(EvaluationSpec, dg.Config):
    """The evaluation's settings as run config."""


@dg.asset(
    group_name="evaluation",
    kinds={"pytorch", "scikitlearn"},
    owners=["team:ml-platform"],
    code_version=code_digest(evaluate.__module__),
)
def eval_report(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    workspace: Workspace,
    tracking: Tracking,
    dataset_splits: SplitsRef,
    base_model: BaseModelRef,
    lora_adapter: AdapterRef,
) -> dg.MaterializeResult[EvalReportRef]:
    """How well the tuned candidate answers the test split, beside its base, the champion in
    production, the commonest answer and a TF-IDF classifier: exact match, valid JSON,
    accuracy and F1 by field, slices with intervals, ragas metrics without an LLM, latency
    and tokens; and how it does on the suites. One HTML page for people, `report.json` for the
    stages that follow, and `records.parquet` with every answer and its scores. Answers are
    kept by model and split, so comparing again costs nothing.
    """

    def publish(directory: Path, report: Mapping[str, Any]) -> None:
        with tracking.attach(context) as run:
            log_evaluation(run, directory, report)

    with workspace.stage(context) as store:
        entry = workspace.home.ledger.champion(workspace.model)
        champion = entry.decision.bundle if entry else None
        ref = evaluate(store, dataset_splits, base_model, lora_adapter, champion, config, publish)
        metadata = _metadata(store.path(ref.artifact), read_report(store, ref.artifact))
        metadata |= ref.bundle.versions.by_name()
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(ref.artifact.digest),
        metadata=metadata | {"from_store": bool(ref.artifact.reused)},
    )


@dg.asset_check(asset=eval_report, blocking=True)
def absolute_floor(workspace: Workspace, eval_report: EvalReportRef) -> dg.AssetCheckResult:
    """Whether the candidate reaches the floors that stand in the report: exact match, valid
    JSON, and more than the commonest answer. A missing number is no verdict and fails."""
    try:
        floors = gate.check_floors(read_report(workspace.home.store, eval_report.artifact))
    except LineageError as error:
        return dg.AssetCheckResult(passed=False, description=f"No verdict: {error}")
    return dg.AssetCheckResult(
        passed=gate.passes(floors),
        description="; ".join(str(floor) for floor in floors),
        metadata={"floors": dg.MetadataValue.table([_floor_record(floor) for floor in floors])},
    )


def _floor_record(floor: gate.Floor) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "floor": floor.name,
            "measured": page.percent(floor.measured),
            "required": page.percent(floor.required),
            "verdict": floor.verdict,
        }
    )


def _metadata(directory: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    plot = base64.b64encode((directory / "plot.png").read_bytes()).decode()
    found: dict[str, Any] = {
        f"exact_match_{name}": value
        for name, value in report["exact_match"].items()
        if value is not None
    }
    return found | {
        "scores": dg.MetadataValue.md(_headline(report)),
        "plot": dg.MetadataValue.md(f"![scores](data:image/png;base64,{plot})"),
        "slices": dg.MetadataValue.table(_slices(report)) if report["slices"] else "none",
        "suites": dg.MetadataValue.md(_suites(report)),
        "report": dg.MetadataValue.url((directory / "report.html").as_uri()),
        "report_json": dg.MetadataValue.path(str(directory / "report.json")),
        "candidate": report["candidate"],
        "champion": report["champion"] or "none yet",
        "test_rows": report["items"],
    }


def _headline(report: Mapping[str, Any]) -> str:
    valid = report.get("valid_json")
    heads = ["system", "exact match", "95% interval", *(["valid JSON"] if valid else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in scoring.SYSTEMS:
        if (value := report["exact_match"][name]) is None:
            continue
        low, high = report["intervals"]["exact_match"][name]
        lines.append(
            f"| {page.NAMES[name]} | {page.percent(value)}"
            f" | {page.percent(low)} to {page.percent(high)}"
            + (f" | {page.percent(valid.get(name))} |" if valid else " |")
        )
    return "\n".join(lines)


def _suites(report: Mapping[str, Any]) -> str:
    """Every suite's metrics; why it was not asked, where it was not."""
    lines = ["| suite | metric | tuned | base | champion | items |", "|---" * 6 + "|"]
    for name, part in report["suites"].items():
        if not part["applies"]:
            lines.append(f"| {name} | not asked: {part['reason']} |  |  |  |  |")
        for metric, scores in part["metrics"].items():
            shown = [page.percent(scores[system]) for system in ("tuned", "base", "champion")]
            lines.append(f"| {name} | {metric} | {' | '.join(shown)} | {part['items']} |")
    return "\n".join(lines) if report["suites"] else "none"


def _slices(report: Mapping[str, Any]) -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {"slice": dimension, "value": value, "rows": scores["count"]}
            | {name: page.percent(scores["exact_match"][name]) for name in scoring.SYSTEMS}
        )
        for dimension, values in report["slices"].items()
        for value, scores in values.items()
    ]


defs = dg.Definitions(assets=[eval_report], asset_checks=[absolute_floor])
