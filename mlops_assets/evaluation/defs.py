"""The assets `eval_report` and `gate_verdict`, and the blocking check `gate`."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.artifacts import LineageError
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation import page, scoring
from mlops_assets.evaluation.gate import decide_gate, headline, record_verdict
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.evaluation.gate_summary import publish_result, withdraw_result
from mlops_assets.evaluation.report import evaluate, read_report
from mlops_assets.evaluation.run_log import log_evaluation
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.refs import AdapterRef, BaseModelRef, EvalReportRef, GateRef, SplitsRef
from mlops_assets.resources import Tracking, Workspace
from mlops_assets.verdicts import FAIL, GATE, INCONCLUSIVE, JUNIT, PASS, SUMMARY, Gate, read_gate


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
        withdraw_result(workspace.home.gate)
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


class GateConfig(GateSpec, dg.Config):
    """The gate's settings as run config."""


@dg.asset(
    group_name="evaluation",
    kinds={"python", "sqlite"},
    owners=["team:ml-platform"],
    code_version=code_digest(decide_gate.__module__),
)
def gate_verdict(
    context: dg.AssetExecutionContext,
    config: GateConfig,
    workspace: Workspace,
    eval_report: EvalReportRef,
) -> dg.MaterializeResult[GateRef]:
    """Whether a person may be asked to promote the candidate: PASS, FAIL or INCONCLUSIVE for
    each criterion, with the numbers that decided. Exact paired tests against the champion on
    the same items, slices and suites that must not be worse, floors, ceilings, green checks.
    `summary.md` is a comment for a pull request, `junit.xml` for a CI service; the verdict is
    a row on the ledger.
    """
    with workspace.stage(context) as store:
        home = workspace.home
        withdraw_result(home.gate)
        ref = decide_gate(store, home.checks, eval_report, config)
        found = read_gate(store, ref)
        entry = record_verdict(home.ledger, workspace.model, ref, found)
        publish_result(store, ref, home.gate)
        metadata = _gate_metadata(store.path(ref.artifact), found)
    return dg.MaterializeResult(
        value=ref,
        data_version=dg.DataVersion(ref.artifact.digest),
        metadata=metadata
        | {"from_store": ref.artifact.reused}
        | ({"ledger_entry": entry.entry} if entry else {}),
    )


@dg.asset_check(asset=gate_verdict, blocking=True)
def gate(workspace: Workspace, gate_verdict: GateRef) -> dg.AssetCheckResult:
    """Whether every criterion passes. FAIL stops the run; INCONCLUSIVE does too, unless the
    setting `allow_inconclusive` of `gate_verdict` lets it pass, and even then promotes nothing."""
    try:
        found = read_gate(workspace.home.store, gate_verdict)
    except LineageError as error:
        return dg.AssetCheckResult(passed=False, description=f"No verdict: {error}")
    tolerated = found.verdict == INCONCLUSIVE and found.spec["allow_inconclusive"] is True
    return dg.AssetCheckResult(
        passed=found.verdict == PASS or tolerated,
        description=headline(found),
        metadata={"criteria": _criteria(found, FAIL, INCONCLUSIVE)},
    )


def _gate_metadata(directory: Path, found: Gate) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "decided_by": headline(found),
        "criteria": _criteria(found, FAIL, INCONCLUSIVE, PASS),
        "summary": dg.MetadataValue.md((directory / SUMMARY).read_text("utf-8")),
        "gate_json": dg.MetadataValue.path(str(directory / GATE)),
        "junit": dg.MetadataValue.path(str(directory / JUNIT)),
        "candidate": found.candidate,
        "champion": found.champion or "none yet",
    }


def _criteria(found: Gate, *verdicts: str) -> dg.TableMetadataValue:
    """The criteria with these verdicts, in this order of them."""
    columns = ("verdict", "criterion", "what_decided", "numbers")
    rows = [
        (item.verdict, item.name, item.detail, json.dumps(dict(item.numbers)))
        for verdict in verdicts
        for item in found.criteria
        if item.verdict == verdict
    ]
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in columns]),
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
        "report": dg.MetadataValue.path(directory / "report.html"),
        "report_json": dg.MetadataValue.path(str(directory / "report.json")),
        "candidate": report["candidate"],
        "champion": report["champion"] or "none yet",
        "test_rows": report["items"],
        "judge": report["judge"]["reason"],
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


defs = dg.Definitions(assets=[eval_report, gate_verdict], asset_checks=[gate])
