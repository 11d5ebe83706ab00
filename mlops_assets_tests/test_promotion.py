"""The stage's assets: what their pages show, what they promote, and what stops them."""

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from mlops_assets.home import Home
from mlops_assets.ledger import PROMOTED
from mlops_assets.promotion import defs
from mlops_assets.promotion.submission import Submission
from mlops_assets.promotion.version_tags import REQUIRED
from mlops_assets.refs import (
    AdapterRef,
    BaseModelRef,
    EvalReportRef,
    GateRef,
    RegisteredModelRef,
    SplitsRef,
)
from mlops_assets.resources import RESOURCES, Workspace
from mlops_assets_tests.submissions import NAME, client, make_submission

AUTOMATIC = {"config": {"risk_class": "low", "automatic_for": ["low"]}}


def materialize(submission: Submission, instance: dg.DagsterInstance, **settings: Any) -> Any:
    """Run the stage's assets under given inputs, as a job does; no person is asked."""

    @dg.asset
    def dataset_splits() -> SplitsRef:
        return submission.splits

    @dg.asset
    def base_model() -> BaseModelRef:
        return submission.base

    @dg.asset
    def lora_adapter() -> AdapterRef:
        return submission.adapter

    @dg.asset
    def eval_report() -> EvalReportRef:
        return submission.evaluated

    @dg.asset
    def gate_verdict() -> GateRef:
        return submission.gate

    upstream = [dataset_splits, base_model, lora_adapter, eval_report, gate_verdict]
    return dg.materialize(
        [*upstream, *(defs.defs.assets or [])],
        resources=RESOURCES,
        instance=instance,
        run_config={
            "ops": {"registered_model": {"config": settings}, "promotion_decision": AUTOMATIC}
        },
        raise_on_error=False,
    )


def page(result: Any, asset: str = "registered_model") -> dict[str, Any]:
    event = result.asset_materializations_for_node(asset)[0]
    return {name: value.value for name, value in event.metadata.items()}


def test_the_assets_register_and_promote_once(tracked_home: Home) -> None:
    submission = make_submission(tracked_home)
    bundle = submission.evaluated.bundle.digest
    with dg.DagsterInstance.ephemeral() as instance:
        first = materialize(submission, instance)
        again = materialize(make_submission(tracked_home, champion=bundle), instance)
    assert first.success
    assert again.success
    assert client(tracked_home).get_model_version_by_alias(NAME, "champion").version == 1
    shown, once_more = page(first), page(again)
    assert (shown["version"], shown["from_store"]) == (1, False)
    assert (once_more["version"], once_more["from_store"]) == (1, True)
    for each in (shown, once_more):
        assert each["model_card"].startswith(f"# {NAME}")
        assert {record.data["tag"] for record in each["lineage"].records} >= set(REQUIRED)
        assert each["bill_of_materials"].endswith("/bom.cdx.json")
    decision = page(again, "promotion_decision")
    assert (decision["state"], decision["ledger_entries"]) == (PROMOTED, 3)
    assert decision["from_store"] is True
    latest = tracked_home.latest("registered_model")
    assert isinstance(latest, RegisteredModelRef)
    assert latest.version == 1
    held = client(tracked_home).get_model_version(NAME, "1")
    assert held.source.startswith(tracked_home.mlflow_artifacts.as_uri())
    runs = client(tracked_home).search_runs(["1"])
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_a_changed_report_fails_the_run_and_promotes_nothing(home: Home) -> None:
    submission = make_submission(home)
    (home.store.path(submission.evaluated.artifact) / "report.json").write_text("{}")
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(submission, instance)
    assert not result.success
    assert "changed after it was built" in str(result.all_events)
    assert home.ledger.entries() == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made: replace(made.adapter, mlflow_run=""), "nothing is known of mlflow_run"),
        (
            lambda made: replace(
                made.adapter, artifact=replace(made.adapter.artifact, summary={"settings": "{}"})
            ),
            "does not say what made it",
        ),
    ],
)
def test_an_incomplete_lineage_registers_nothing(home: Home, spoil: Any, said: str) -> None:
    made = make_submission(home)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(replace(made, adapter=spoil(made)), instance)
    assert not result.success
    assert said in str(result.all_events)
    assert not home.mlflow_database.exists()


def test_a_setting_bounds_the_package(tracked_home: Home) -> None:
    large = {"more.safetensors": b"x" * 1_100_000}
    submission = make_submission(tracked_home, files=large)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(submission, instance, max_package_mib=1)
    assert not result.success
    assert "more than the 1 MiB" in str(result.all_events)


@pytest.mark.parametrize("name", ["a b", "x' or name='y", "", "-"])
def test_the_registrys_name_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match="model"):
        Workspace(model=name)
