"""The drift report as a whole: on the shipped generator and as assets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.dataset import production
from mlops_assets.home import Home
from mlops_assets.monitoring import defs
from mlops_assets.monitoring.drift import findings, verdict
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring_refs import DriftReportRef
from mlops_assets.refs import (
    PredictionRecord,
    Row,
    SplitsRef,
)
from mlops_assets.resources import RESOURCES
from mlops_assets_tests.drift_windows import TICKET_LABELS, ticket_rows
from mlops_assets_tests.production_records import SPEC, make_log, make_splits, reference_of

TRAIN = 2_000


@pytest.fixture(scope="module")
def tickets() -> list[Row]:
    """Train rows from the shipped generator."""
    return ticket_rows(TRAIN)


@pytest.mark.parametrize(
    ("sample", "expected"), [("unshifted", findings.NO_DRIFT), ("shifted", findings.DRIFT)]
)
def test_the_shipped_samples(home: Home, tickets: list[Row], sample: str, expected: str) -> None:
    mix, errors = production.MIXES[sample]
    lines = production.record_lines(400, 5, mix, errors)
    records = [PredictionRecord(**json.loads(text)) for text in lines]
    reference = reference_of(home.store, tickets, TICKET_LABELS)
    log = make_log(home.store, home.root, records)
    ref = verdict.report_drift(home.store, reference, log, SPEC)
    assert (ref.verdict, ref.records) == (expected, 400)
    layers = {"data": expected, "prediction": expected, "business": "no_verdict"}
    assert layers.items() <= ref.layers.items()
    directory = home.store.path(ref.artifact)
    report = json.loads((directory / verdict.REPORT).read_text())
    assert report["verdict"] == expected
    assert len(report["columns"]) == 13
    assert set(ref.columns) == {n for n, c in report["columns"].items() if c["drifted"]}
    if sample == "shifted":
        expected_columns = {"words", "unknown_words", "request_embedding", "slice_channel"}
        assert expected_columns | {"predicted_queue"} <= set(ref.columns)
    page = (directory / verdict.DISTRIBUTIONS).read_text()
    # Evidently's part, with the tests that we named; it opens without a network.
    assert {text in page for text in ("chi-square", "K-S p_value")} == {True}
    assert {text in page for text in ("<script src=", "<link ")} == {False}
    assert (directory / verdict.PLOT).read_bytes().startswith(b"\x89PNG")
    assert verdict.report_drift(home.store, reference, log, SPEC).artifact.reused


def intent_rows(count: int, offset: int = 0) -> list[Row]:
    """A data set with one field, many labels and no slices."""
    rows = []
    for number in range(offset, offset + count):
        intent = f"intent-{number % 40}"
        messages = (
            {"role": "user", "content": f"please help me with {intent} today"},
            {"role": "assistant", "content": json.dumps({"intent": intent})},
        )
        rows.append(Row(f"r{number}", "", f"r{number}", messages, {}))
    return rows


def as_records(rows: Sequence[Row]) -> list[PredictionRecord]:
    return [PredictionRecord(row.id, "2026-07-01", "r", row.prompt, row.answer) for row in rows]


def test_data_without_slices(home: Home) -> None:
    labels = {"intent": tuple(f"intent-{n}" for n in range(40))}
    reference = reference_of(home.store, intent_rows(1_000), labels)
    same = make_log(home.store, home.root, as_records(intent_rows(240, 5_000)))
    ref = verdict.report_drift(home.store, reference, same, SPEC)
    assert ref.verdict == findings.NO_DRIFT
    broken = [replace(item, output="sorry") for item in as_records(intent_rows(240))]
    log = make_log(home.store, home.root, broken)
    ref = verdict.report_drift(home.store, reference, log, SPEC)
    assert ref.columns == ("predicted_intent", "invalid_answers")
    assert (ref.verdict, ref.layers["data"]) == (findings.DRIFT, findings.NO_DRIFT)


def run_stage(rows: Sequence[Row], labels: Mapping[str, tuple[str, ...]], **config: Any) -> Any:
    """Run the stage's assets as the job `monitor` does."""

    @dg.asset
    def dataset_splits() -> SplitsRef:
        return make_splits(Home.from_environment().store, rows, labels)

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [dataset_splits, *(defs.defs.assets or [])],
            resources=RESOURCES,
            instance=instance,
            run_config={"ops": {name: {"config": value} for name, value in config.items()}},
            raise_on_error=False,
        )


def test_the_assets_without_any_record(home: Home) -> None:
    absent = str(home.root / "nothing-yet")
    result = run_stage(intent_rows(300), {"intent": ("x",)}, prediction_log={"directory": absent})
    assert result.success
    ref = home.latest("drift_report")
    assert isinstance(ref, DriftReportRef)
    assert (ref.verdict, ref.records, ref.columns) == (findings.NO_VERDICT, 0, ())
    report = json.loads((home.store.path(ref.artifact) / verdict.REPORT).read_text())
    assert report["columns"]["words"]["p"] is None
    assert "No verdict" in (home.store.path(ref.artifact) / verdict.PAGE).read_text()
    event = result.asset_materializations_for_node("drift_report")[0]
    assert {"verdict", "columns", "effects", "report", "from_store"} <= event.metadata.keys()
    assert event.metadata["reason"].value == "0 records, 100 are needed"
    layers = [row.data for row in event.metadata["layers"].value.records]
    assert [(row["layer"], row["verdict"]) for row in layers] == [
        (name, "no verdict") for name in findings.LAYERS
    ]
    assert Path(event.metadata["report"].value).is_file()  # a browser follows no file:// link
    quality = result.asset_materializations_for_node("answer_quality")[0].metadata
    assert quality["compared_with"].value.startswith("nothing: ")
    assert quality["labelled"].value.records == []
    log = result.asset_materializations_for_node("prediction_log")[0].metadata
    assert log["period"].value == "no records"


@pytest.mark.parametrize(
    "settings", [{"alpha": 0}, {"min_effect": 2}, {"min_records": 1}, {"unknown": 1}]
)
def test_settings_are_bounded(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DriftSpec(**settings)
