"""New rows from feedback start a retraining, within the bounds that it shares with drift."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from mlops_assets.artifacts import Artifact
from mlops_assets.home import Home
from mlops_assets.monitoring.feedback.versions import VERSIONS
from mlops_assets.monitoring_refs import FeedbackRowsRef
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import RawDatasetRef
from mlops_assets.retraining_notes import read_notes
from mlops_assets_tests.daemon import Daemon
from mlops_assets_tests.test_automation import drifted

ROWS = 100


def configure(data: Path, **drift: int) -> None:
    """A profile that learns from feedback."""
    settings = {
        "raw_dataset": {"path": str(data), "feedback": "${MLOPS_HOME}/feedback"},
        "drift_report": {"retrain_feedback_rows": ROWS, **drift},
    }
    profile = {"ops": {asset: {"config": given} for asset, given in settings.items()}}
    (data.parent / "profile.yaml").write_text(json.dumps(profile))


@pytest.fixture
def folder(home: Home, data: Path) -> Path:
    data.unlink()
    configure(data)
    folder = home.root / "feedback"
    folder.mkdir()
    return folder


def publish(home: Home, folder: Path, version: str, rows: int, added: int) -> None:
    """As if `monitor` had put a version of feedback in force."""
    files = {
        name: {"md5": f"{version}-{name}", "size": 1, "rows": rows}
        for name in ("training.jsonl", "regressions.jsonl", "provenance.jsonl")
    }
    line = {"version": version, "time": "2026-03-02T12:00:00+00:00", "files": files}
    with (folder / VERSIONS).open("a") as stream:
        stream.write(json.dumps(line | {"added": added, "removed": 0, "reason": "test"}) + "\n")
    ref = FeedbackRowsRef(Artifact("feedback_rows", version, version), rows, 0, version)
    home.write_ref("feedback_rows", "a-run", dump_ref(ref))


def retrained_on(home: Home, version: str) -> None:
    """As if a run had read the data with this version of feedback."""
    ref = RawDatasetRef(f"data+{version}-training.jsonl", "somewhere", True, {})
    home.write_ref("raw_dataset", "a-run", dump_ref(ref))


def said(home: Home, sensor: str) -> str:
    (note,) = [note for note in read_notes(home) if note.sensor == sensor]
    return note.said


def test_enough_new_rows_start_one_retraining(daemon: Daemon, home: Home, folder: Path) -> None:
    daemon.tick_sensors()
    publish(home, folder, "v1", rows=ROWS - 1, added=ROWS - 1)
    daemon.tick_sensors()
    assert daemon.retrains("feedback") == []
    assert "99 new rows from feedback are fewer than 100" in said(home, "feedback_sensor")
    publish(home, folder, "v2", rows=ROWS, added=1)
    daemon.tick_sensors()
    (run,) = daemon.retrains("feedback")
    assert run.tags["mlops/reason"] == "100 new rows from feedback"
    retrained_on(home, "v2")
    publish(home, folder, "v3", rows=ROWS + 5, added=5)
    daemon.tick_sensors(timedelta(hours=13))
    assert len(daemon.retrains("feedback")) == 1, "five are new to what was trained on"


def test_drift_and_feedback_share_cooldown_and_cap(
    daemon: Daemon, home: Home, folder: Path
) -> None:
    """A storm of both for a day: a new verdict and a hundred new rows every two hours."""
    for look in range(12):
        publish(home, folder, f"v{look}", rows=ROWS * (look + 1), added=ROWS)
        drifted(home, key=f"k{look}")
        daemon.tick_sensors(timedelta(hours=2))
    assert len(daemon.retrains("drift")) + len(daemon.retrains("feedback")) == 2


def test_one_reason_starts_one_retraining_and_no_note_says_otherwise(
    daemon: Daemon, home: Home, folder: Path
) -> None:
    """Also where the run failed and the cooldown is long over."""
    publish(home, folder, "v1", rows=0, added=0)
    drifted(home)
    daemon.tick_sensors()
    (run,) = daemon.retrains("drift")
    daemon.workspace.instance.report_run_failed(run, "The run's process was killed.")
    daemon.tick_sensors(timedelta(hours=30))
    assert len(daemon.retrains("drift")) == 1
    assert said(home, "drift_sensor") == (
        f"No retraining: run {run.run_id[:8]} had the same reason."
    )


def test_drift_waits_for_something_to_learn_from(
    daemon: Daemon, home: Home, data: Path, folder: Path
) -> None:
    configure(data, retrain_drift_rows=50, retrain_feedback_rows=10_000)
    drifted(home)
    daemon.tick_sensors()
    assert daemon.retrains("drift") == []
    assert "there is drift, but 0 new rows" in said(home, "drift_sensor")
    publish(home, folder, "v1", rows=50, added=50)
    daemon.tick_sensors()
    assert len(daemon.retrains("drift")) == 1, "the same verdict, and now there is something"


def test_who_learns_from_no_feedback_is_left_alone(
    daemon: Daemon, home: Home, data: Path, folder: Path
) -> None:
    publish(home, folder, "v1", rows=10 * ROWS, added=10 * ROWS)
    (data.parent / "profile.yaml").write_text(f"ops: {{raw_dataset: {{config: {{path: {data}}}}}}}")
    daemon.tick_sensors()
    assert daemon.runs == []
