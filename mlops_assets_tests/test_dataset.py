"""The assets of the stage `dataset`: what they say, and what they stop."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.dataset.defs import defs as dataset_defs
from mlops_assets.dataset.synthetic import LABELS
from mlops_assets.resources import RESOURCES
from mlops_assets_tests.sound_tickets import observed, ticket


def materialize(config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    assets = list(dataset_defs.assets or ())
    return dg.materialize(
        assets,  # type: ignore[arg-type]
        resources=RESOURCES,
        run_config={"ops": {op: {"config": values} for op, values in config.items()}},
        raise_on_error=False,
    )


def test_assets_say_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    raw = observed(tmp_path, [*(ticket(number) for number in range(120)), "{broken"])
    vocabulary = {name: list(reversed(values)) for name, values in LABELS.items()}
    limits = {"labels": vocabulary, "min_rows": 10}
    config = {"raw_dataset": {"path": raw.path}, "validated_dataset": limits}
    result = materialize(config)
    assert result.success
    said = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert said["raw_dataset"]["dvc_hash"].value == raw.version
    assert said["validated_dataset"]["quarantined"].value == 1
    assert Path(str(said["validated_dataset"]["data_docs"].value)).is_file()
    assert {"splits", "label_mix", "preview", "from_store"} <= set(said["dataset_splits"])
    ref = result.output_for_node("dataset_splits")
    assert list(ref.labels) == list(LABELS)
    assert ref.labels["queue"] == tuple(reversed(LABELS["queue"]))


def test_refused_data_blocks_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    raw = observed(tmp_path, [ticket(1), "{broken"])
    result = materialize({"raw_dataset": {"path": raw.path}})
    assert not result.success
    steps = {event.step_key for event in result.get_step_success_events()}
    assert steps == {"raw_dataset"}
    failure = result.failure_data_for_node("validated_dataset")
    assert failure is not None
    assert "1 of 2 rows (50.0%) were quarantined" in str(failure.error)
