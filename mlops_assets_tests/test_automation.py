"""Sensors and schedules, ticked by Dagster's daemon code against a real instance."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_assets.artifacts import Artifact
from mlops_assets.home import Home
from mlops_assets.monitoring_refs import DriftReportRef
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import (
    RawDatasetRef,
)
from mlops_assets.retraining_notes import read_notes
from mlops_assets_tests.conftest import VERSIONS
from mlops_assets_tests.daemon import Daemon


def handled(home: Home, version: str) -> None:
    """As if a run had materialised this version of the data."""
    ref = RawDatasetRef(version, "somewhere", True, {})
    home.write_ref("raw_dataset", "a-run", dump_ref(ref))


def drifted(home: Home, key: str = "k1", **changes: object) -> None:
    """As if a run of `monitor` had come to this verdict."""
    artifact = Artifact("drift_report", key, f"digest-{key}")
    ref = DriftReportRef(artifact, "drift", ("words",), 1000, VERSIONS)
    home.write_ref("drift_report", "a-run", dump_ref(replace(ref, **changes)))  # type: ignore[arg-type]


def test_a_change_of_the_data_starts_one_retraining(daemon: Daemon, home: Home, data: Path) -> None:
    daemon.tick_sensors()
    assert len(daemon.retrains("data")) == 1, "data that no run has seen"
    daemon.tick_sensors()
    assert len(daemon.retrains("data")) == 1, "the same content again"
    data.write_text('{"id": "1"}\n{"id": "2"}\n')
    daemon.tick_sensors()
    daemon.tick_sensors()
    assert len(daemon.retrains("data")) == 2


def test_data_that_a_run_has_seen_starts_nothing(daemon: Daemon, home: Home, data: Path) -> None:
    import hashlib

    handled(home, hashlib.md5(data.read_bytes(), usedforsecurity=False).hexdigest())
    daemon.tick_sensors()
    assert daemon.retrains("data") == []


def test_missing_data_starts_nothing(daemon: Daemon, data: Path) -> None:
    data.unlink()
    daemon.tick_sensors()
    assert daemon.runs == []


def test_drift_starts_one_retraining_and_says_why(daemon: Daemon, home: Home, data: Path) -> None:
    data.unlink()
    drifted(home)
    daemon.tick_sensors()
    daemon.tick_sensors()
    (run,) = daemon.retrains("drift")
    assert "words" in run.tags["mlops/reason"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": "no_drift", "columns": ()}, "the latest verdict is no drift"),
        ({"verdict": "no_verdict"}, "gives no verdict over 1,000 records: its page says why"),
        ({"records": 3}, "3 records are fewer than 200"),
        ({"layers": {"data": "no_drift", "business": "drift"}}, "business metrics alone"),
    ],
    ids=["no drift", "no verdict", "too few records", "business metrics alone"],
)
def test_no_drift_no_retraining(
    daemon: Daemon, home: Home, data: Path, changes: dict[str, object], said: str
) -> None:
    data.unlink()
    drifted(home, **changes)
    daemon.tick_sensors()
    assert daemon.runs == []
    (note,) = (note for note in read_notes(home) if note.sensor == "drift_sensor")
    assert said in note.said


def test_a_drift_storm_is_damped(daemon: Daemon, home: Home, data: Path) -> None:
    """A new verdict every two hours for a day: cooldown and daily cap hold."""
    data.unlink()
    for number in range(12):
        drifted(home, key=f"k{number}")
        daemon.tick_sensors(timedelta(hours=2))
    started = [run.tags["mlops/reason"] for run in daemon.retrains("drift")]
    assert len(started) == 2


def test_a_failed_run_alerts_people_once(daemon: Daemon, webhook: list[object]) -> None:
    daemon.tick_sensors()
    (run,) = daemon.retrains("data")
    daemon.workspace.instance.report_run_failed(run, "The run's process was killed.")
    daemon.tick_sensors()
    daemon.tick_sensors()
    (message,) = webhook
    assert run.run_id[:8] in str(message)
    assert "was killed" in str(message)


def test_the_schedules_start_their_jobs_once_a_day(daemon: Daemon) -> None:
    midnight = datetime(2026, 3, 3, 0, 0, tzinfo=UTC)
    daemon.tick_schedules(midnight)
    daemon.tick_schedules(midnight + timedelta(hours=6))
    assert sorted(run.job_name for run in daemon.runs) == ["evaluate", "monitor"]
    daemon.tick_schedules(midnight + timedelta(hours=7))
    assert len(daemon.runs) == 2


def test_sensors_and_schedules_run_by_default(daemon: Daemon) -> None:
    from dagster import DefaultScheduleStatus, DefaultSensorStatus

    from mlops_assets.definitions import defs

    repository = defs.get_repository_def()
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    assert set(sensors) >= {
        *("data_change_sensor", "traffic_sensor", "drift_sensor", "feedback_sensor"),
        *("champion_changed", "champion_restored", "release_changed", "run_failure_alert"),
    }
    assert set(sensors.values()) == {DefaultSensorStatus.RUNNING}
    schedules = {item.default_status for item in repository.schedule_defs}
    assert schedules == {DefaultScheduleStatus.RUNNING}
