"""Dagster's own storage: SQLite under ``DAGSTER_HOME``, or Postgres by environment.

``dagster.yaml`` names this class, so that the same file serves a laptop and a cluster.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from mlops_assets.artifacts import LineageError
from mlops_assets.console import say_errors_plainly


class StorageFromEnvironment(DagsterSqliteStorage):
    """Postgres when ``DAGSTER_POSTGRES_URL`` is set, else SQLite."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]  # as Dagster's own storages do
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage:
        """The storage. Raises LineageError when Postgres is asked for but not installed."""
        del inst_data, config_value  # the environment decides
        if "DAGSTER_POSTGRES_URL" in os.environ:
            return _postgres()
        directory = str(Path(os.environ["DAGSTER_HOME"]) / "storage")
        described = _data("dagster._core.storage.sqlite_storage", "DagsterSqliteStorage")
        return DagsterSqliteStorage(directory, described({"base_dir": directory}))


def _data(module: str, name: str) -> Callable[[dict[str, Any]], ConfigurableClassData]:
    return lambda config: ConfigurableClassData(module, name, yaml.safe_dump(config))


def _postgres() -> DagsterStorage:
    try:
        from dagster_postgres import DagsterPostgresStorage
    except ImportError as error:
        say_errors_plainly()  # the definitions, which see to that, are not loaded yet
        raise LineageError(
            "DAGSTER_POSTGRES_URL is set, but dagster-postgres is not installed.",
            "Install the extra: pip install 'mlops-assets[postgres]'.",
        ) from error
    # The URL holds a password: Dagster is told the variable's name, not its value.
    config = {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}
    storage: DagsterStorage = DagsterPostgresStorage(
        os.environ["DAGSTER_POSTGRES_URL"],
        inst_data=_data("dagster_postgres", "DagsterPostgresStorage")(config),
    )
    return storage
