"""Dagster's daemon code against a real instance, at times that the test chooses.

Runs are queued, not started: what is tested is which runs are asked for, and how often.
"""

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

from mlops_assets.home import Home
from mlops_assets_tests.commands import environment_for

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

    def started(self, job: str, trigger: str) -> list[DagsterRun]:
        """The runs of the job that this trigger asked for."""
        return [
            run for run in self.runs if run.job_name == job and run.tags.get(TRIGGER) == trigger
        ]

    def retrains(self, trigger: str) -> list[DagsterRun]:
        """The runs of `retrain` that this trigger asked for."""
        return self.started("retrain", trigger)

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
