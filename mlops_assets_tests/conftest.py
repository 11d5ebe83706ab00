"""Homes for tests, and one real run of the job `lineage` that many tests look at."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.home import Home, run_lock
from mlops_assets_tests.commands import OURS, SERVICES, Finished, execute_job, run_command


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: a mistake shows in seconds, not after a training."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the developer's state, nor another test's."""
    for name in (*OURS, *SERVICES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    yield
    run_lock.release()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home, which MLOPS_HOME names."""
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes MLflow seven seconds."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracked_home(home: Home, migrated_database: Path) -> Home:
    """A home whose MLflow database exists already."""
    shutil.copyfile(migrated_database, home.mlflow_database)
    return home


@dataclass(frozen=True)
class LineageRun:
    """A home in which the job `lineage` ran once from nothing."""

    home: Path
    first: Finished

    @property
    def status(self) -> Any:
        return run_command("mlops", "status", "--json", home=self.home).json


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> LineageRun:
    """The default profile's lineage, run cold by the real command."""
    home = tmp_path_factory.mktemp("lineage") / "home"
    first = execute_job("lineage", home=home)
    assert first.code == 0, first.output
    return LineageRun(home, first)
