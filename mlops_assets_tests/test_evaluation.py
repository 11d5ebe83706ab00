"""The stage `evaluation` in Dagster: report, gate, MLflow, champion."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from mlops_assets.checks import (
    NO_LEAKAGE,
    TEMPLATE_FIDELITY,
    CheckResult,
    adapter_on_base,
    record_check,
)
from mlops_assets.evaluation.defs import EvaluationConfig, defs, eval_report, gate, gate_verdict
from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED, Decision
from mlops_assets.resources import RefIOManager, Tracking, Workspace
from mlops_assets_tests.small_evaluation import LIBRARY_NOTES, SPEC, Parts, measure

# Libraries speaking of each other: peft to transformers, torch to torch.
pytestmark = LIBRARY_NOTES


@pytest.fixture
def home(measured_home: Home) -> Home:
    return measured_home


@pytest.fixture
def parts(measured_parts: Parts) -> Parts:
    return measured_parts


@pytest.mark.parametrize(
    "setting",
    [
        {"batch_size": 0},
        {"minimum_exact_match": 0.5},  # a setting of the gate
        {"max_new_tokens": 0},
        {"unknown": 1},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(setting) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig(**setting)


def run(home, parts, **gate_config):
    """Materialise the stage and what hangs on it, with its inputs as stored refs."""

    @dg.asset(deps=["gate_verdict"])
    def downstream() -> None:
        """Stands for the promotion stage."""

    def source(name: str):
        @dg.asset(name=name)
        def stored():
            return dg.MaterializeResult(value=parts[name])

        return stored

    adapter = adapter_on_base(parts["base_model"].artifact, parts["lora_adapter"].artifact)
    record_check(home.checks, TEMPLATE_FIDELITY, adapter, CheckResult(True, "clean"))
    splits = parts["dataset_splits"].artifact.digest
    record_check(home.checks, NO_LEAKAGE, splits, CheckResult(True, "clean"))
    config = {
        "eval_report": {"config": SPEC.model_dump()},
        "gate_verdict": {"config": {"minimum_items": 20, **gate_config}},
    }
    return dg.materialize(
        [*(source(name) for name in parts), eval_report, gate_verdict, gate, downstream],
        resources={
            "workspace": Workspace(),
            "tracking": Tracking(),
            "io_manager": RefIOManager(),
        },
        run_config={"ops": config},
        raise_on_error=False,
        instance=dg.DagsterInstance.ephemeral(),
    )


@pytest.mark.slow
def test_the_asset_its_check_and_mlflow(home, parts) -> None:
    import mlflow

    shutil.rmtree(home.root / "artifacts" / "eval_report")
    result = run(home, parts, minimum_exact_match=0.6, minimum_valid_json=0.9)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert check.blocking
    (made,) = result.asset_materializations_for_node("eval_report")
    metadata = made.metadata
    assert metadata["exact_match_tuned"].value > 0.9
    assert Path(metadata["report"].value).name == "report.html"
    assert Path(metadata["report_json"].value).is_file()
    assert "data:image/png;base64," in metadata["plot"].value
    assert metadata["from_store"].value is False
    assert "Tuned candidate" in metadata["scores"].value
    client = mlflow.MlflowClient(home.mlflow_uri)
    (logged,) = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["eval/exact_match/tuned"] == metadata["exact_match_tuned"].value
    assert "eval/exact_match/champion" not in logged.data.metrics
    names = {item.path for item in client.list_artifacts(logged.info.run_id, "evaluation")}
    assert "evaluation/report.html" in names


@pytest.mark.slow
def test_after_a_gate_that_failed_nothing_follows(home, parts) -> None:
    result = run(home, parts, maximum_latency_p95_ms=0.001)
    assert not result.success
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.description.startswith("FAIL: latency/p95: ")
    (judged,) = result.asset_materializations_for_node("gate_verdict")
    shown = judged.metadata
    rows = [record.data for record in shown["criteria"].records]
    assert (shown["verdict"].value, rows[0]["verdict"]) == ("FAIL", "FAIL")
    assert rows[0]["criterion"] == "latency/p95"
    assert json.loads(rows[0]["numbers"])["allowed"] == 0.001
    assert {row["verdict"] for row in rows[1:]} == {"PASS"}
    assert shown["summary"].value.startswith("## ")
    assert shown["ledger_entry"].value == 1
    assert result.asset_materializations_for_node("eval_report")
    assert not result.asset_materializations_for_node("downstream")


@pytest.mark.slow
def test_the_champion_is_the_ledgers(home, parts) -> None:
    bundle = measure(home, parts).bundle
    home.ledger.append(Decision("k", PROMOTED, "first", Workspace().model, 1, bundle, {}))
    result = run(home, parts)
    assert result.success
    (made,) = result.asset_materializations_for_node("eval_report")
    assert made.metadata["champion"].value == bundle.digest
    assert made.metadata["exact_match_champion"].value > 0.9


def test_the_asset_is_described() -> None:
    spec, judged = (spec for asset in defs.assets for spec in asset.specs)
    assert {dep.asset_key.path[-1] for dep in judged.deps} == {"eval_report"}
    assert spec.group_name == "evaluation"
    assert spec.owners
    assert spec.kinds
    assert spec.code_version
    assert len(spec.description) > 80
    assert {dep.asset_key.path[-1] for dep in spec.deps} == {
        "dataset_splits",
        "base_model",
        "lora_adapter",
    }
