"""Production's records, made up for the tests of monitoring."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import ArtifactStore, Recipe
from mlops_assets.dataset.expectations import ValidationSpec
from mlops_assets.monitoring.drift.reference import make_reference
from mlops_assets.monitoring.drift.spec import DriftSpec, ReferenceSpec
from mlops_assets.monitoring.log import prediction_log
from mlops_assets.monitoring_refs import DriftReferenceRef, PredictionLogRef
from mlops_assets.refs import (
    PredictionRecord,
    Row,
    SplitsRef,
    write_jsonl,
)
from mlops_assets_tests.conftest import VERSIONS

LOG = prediction_log.PredictionLogSpec(directory="log")
SPEC = DriftSpec(embedding_rows=100)


def record(number: int, text: str = "where is my parcel", **changes: Any) -> PredictionRecord:
    messages = ({"role": "user", "content": text},)
    made = PredictionRecord(f"p{number}", "2026-07-01T00:00:00Z", "r", messages, '{"a":"b"}')
    return replace(made, **changes)


def line(number: int, **changes: Any) -> str:
    return json.dumps(asdict(record(number, **changes)))


def make_splits(
    store: ArtifactStore, rows: Sequence[Row], labels: Mapping[str, tuple[str, ...]]
) -> SplitsRef:
    def produce(directory: Path) -> dict[str, Any]:
        count = write_jsonl(directory / "train.jsonl", rows)
        return {"rows": {"train": count}, "versions": asdict(VERSIONS)}

    inputs = {"rows": str(hash(tuple(row.id for row in rows)))}
    spec = {"labels": [[name, list(values)] for name, values in labels.items()]}
    artifact = store.build(Recipe("dataset_splits", inputs, spec, "1"), produce)
    settings = {"validated_dataset": ValidationSpec().model_dump(mode="json")}
    return SplitsRef(artifact, VERSIONS, {"train": len(rows)}, labels, settings)


def make_log(
    store: ArtifactStore, project: Path, records: Sequence[PredictionRecord]
) -> PredictionLogRef:
    (project / "log").mkdir(parents=True, exist_ok=True)
    write_jsonl(project / "log" / "segment.jsonl", records)
    return prediction_log.collect(store, LOG, project)


def reference_of(
    store: ArtifactStore, rows: Sequence[Row], labels: Mapping[str, tuple[str, ...]], **spec: Any
) -> DriftReferenceRef:
    """The reference of a train split of these rows, before any release."""
    return make_reference(store, make_splits(store, rows, labels), None, ReferenceSpec(**spec))
