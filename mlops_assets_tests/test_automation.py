"""Sensors and schedules, ticked by Dagster's daemon code against a real instance.

Runs are queued, not started: what is tested is which runs are asked for, and how often.
"""

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from dagster import DagsterInstance, DagsterRun
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs

from mlops_assets.artifacts import Artifact
from mlops_assets.home import Home
from mlops_assets.ref_json import dump_ref
from mlops_assets.refs import DriftReportRef, RawDatasetRef
from mlops_assets_tests.commands import environment_for
from mlops_assets_tests.conftest import VERSIONS

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
TRIGGER = "mlops/trigger"


class Daemon:
    """Ticks sensors and schedules as the daemon does, at times that the test chooses."""

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        self.workspace = workspace
        self.now = START

    @property
    def runs(self) -> list[DagsterRun]:
        """Every run asked for, newest first."""
        return list(self.workspace.instance.get_runs())

    def retrains(self, trigger: str) -> list[DagsterRun]:
        """The runs of `retrain` that this trigger asked for."""
        return [
            run
            for run in self.runs
            if run.job_name == "retrain" and run.tags.get(TRIGGER) == trigger
        ]

    def tick_sensors(self, later: timedelta = timedelta(minutes=5)) -> None:
        """One evaluation of every running sensor, ``later`` than the last one."""
        self.now += later
        logger = logging.getLogger("daemon")
        with time_machine.travel(self.now), ThreadPoolExecutor(1) as pool:
            futures: dict[str, object] = {}
            list(execute_sensor_iteration(self.workspace, logger, pool, None, futures))  # type: ignore[arg-type]

    def tick_schedules(self, until: datetime) -> None:
        """Everything that the schedules are due to start until then."""
        with time_machine.travel(until):
            list(launch_scheduled_runs(self.workspace, logging.getLogger("daemon"), until, {}))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile over a data file of the test's own; returns the file."""
    file = tmp_path / "tickets.jsonl"
    file.write_text('{"id": "1"}\n')
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"ops: {{raw_dataset: {{config: {{path: {file}}}}}}}\n")
    monkeypatch.setenv("MLOPS_PROFILE", str(profile))
    return file


@pytest.fixture
def daemon(home: Home, data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("DAGSTER_HOME", environment_for(home.root)["DAGSTER_HOME"])
    # In this process, so that the sensors live in the test's time too.
    code = LoadableTargetOrigin(
        executable_path=sys.executable, module_name="mlops_assets.definitions"
    )
    origin = InProcessCodeLocationOrigin(code, location_name="mlops_assets")
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace,
    ):
        yield Daemon(workspace)


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
    "changes",
    [{"verdict": "no_drift", "columns": ()}, {"verdict": "no_verdict"}, {"records": 3}],
    ids=["no drift", "no verdict", "too few records"],
)
def test_no_drift_no_retraining(
    daemon: Daemon, home: Home, data: Path, changes: dict[str, object]
) -> None:
    data.unlink()
    drifted(home, **changes)
    daemon.tick_sensors()
    assert daemon.runs == []


def test_a_drift_storm_is_damped(daemon: Daemon, home: Home, data: Path) -> None:
    """A new verdict every hour for a day: cooldown and daily cap hold."""
    data.unlink()
    for number in range(24):
        drifted(home, key=f"k{number}")
        daemon.tick_sensors(timedelta(hours=1))
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
    assert set(sensors) >= {"data_change_sensor", "drift_sensor", "run_failure_alert"}
    assert set(sensors.values()) == {DefaultSensorStatus.RUNNING}
    schedules = {item.default_status for item in repository.schedule_defs}
    assert schedules == {DefaultScheduleStatus.RUNNING}
