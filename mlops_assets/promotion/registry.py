"""The MLflow model registry: versions with their lineage, and aliases that follow the ledger.

The registry is a projection. A version is found by its tags, which are written with it in
one transaction, so registering again after a crash finds what was registered before. The
aliases are set from the decision ledger whenever they differ from it (``aliases``). Importing
MLflow costs seconds: where its database is a local SQLite file we look into that first, and
only what a look cannot prove goes through MLflow.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_assets.approval_requests import utc_now
from mlops_assets.artifacts import SHORT, LineageError
from mlops_assets.home import Home
from mlops_assets.promotion.aliases import CANDIDATE, Registered, find_changes, version_of
from mlops_assets.promotion.version_tags import VersionTags, complete

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """An MLflow model directory, and what the registry says of it."""

    directory: Path
    description: str
    tags: Mapping[str, str] = field(default_factory=dict)
    """Beside the lineage: what is known only once the package is built."""


MakePackage = Callable[[], Package]
"""Called only for a new version."""

Attach = Callable[[], AbstractContextManager[str]]
"""Makes the MLflow run of this run active, and gives its id."""


def register(
    home: Home, name: str, tags: VersionTags, make_package: MakePackage, attach: Attach
) -> int:
    """The number of the version in the registry; registered if it is new.

    The same bundle with the same report and gate verdict is the same version. So is a bundle
    that is already the champion, whatever evidence it has by now. The newest version becomes
    the ``candidate``.
    """
    seen = glance(home, name)
    number = _find(home, name, tags, seen) if seen else None
    if seen and number and _settled(seen, number):
        logger.info("version %d of %s is registered already", number, name)
        return number
    with registry_client(home) as client:
        registered = look(client, name)
        number = _find(home, name, tags, registered)
        if number is None:
            number = _create(client, name, tags, make_package, attach)
        else:
            _complete_tags(client, name, number, tags, registered.versions[number])
        newest = max([number, *registered.versions])
        client.set_registered_model_alias(name, CANDIDATE, str(newest))
    return number


def _settled(registered: Registered, number: int) -> bool:
    newest = max(registered.versions)
    return complete(registered.versions[number]) and registered.aliases.get(CANDIDATE) == newest


def _find(home: Home, name: str, tags: VersionTags, registered: Registered) -> int | None:
    same = registered.find(**tags.identity)
    champion = home.ledger.champion(name)
    if same is None and champion and champion.decision.bundle.digest == tags.bundle_digest:
        return version_of(champion, registered)
    return same


def _complete_tags(
    client: Any, name: str, number: int, tags: VersionTags, present: Mapping[str, str]
) -> None:
    for key, value in tags.as_mapping().items():
        if not present.get(key):
            client.set_model_version_tag(name, str(number), key, value)


def _create(
    client: Any, name: str, tags: VersionTags, make_package: MakePackage, attach: Attach
) -> int:
    from mlflow.exceptions import MlflowException

    package, folder = make_package(), f"bundle-{tags.bundle_digest[:SHORT]}"
    with attach() as run_id:
        client.log_artifacts(run_id, str(package.directory), folder)
        location = client.get_run(run_id).info.artifact_uri
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Tags go in the same transaction as the version: there is no version without them.
    created = client.create_model_version(
        name,
        source=f"{location}/{folder}",
        run_id=run_id,
        tags=tags.as_mapping() | dict(package.tags),
        description=package.description,
    )
    logger.info("registered version %s of %s", created.version, name)
    return int(created.version)


def reconcile(home: Home, name: str, now: datetime | None = None) -> Mapping[str, int]:
    """Make the aliases say what the ledger says; returns them.

    To be called after any decision, and harmless at any other time.
    """
    entries, now = home.ledger.entries(), now or utc_now()
    if home.mlflow_is_local and not home.mlflow_database.is_file():
        return {}  # nothing was ever registered here
    seen = glance(home, name)
    if seen is not None and not find_changes(entries, name, seen, now):
        return seen.aliases
    with registry_client(home) as client:
        for alias, version in find_changes(entries, name, look(client, name), now).items():
            if version is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(version))
            logger.info("alias %s of %s: %s", alias, name, version or "removed")
        return look(client, name).aliases


def glance(home: Home, name: str) -> Registered | None:
    """What MLflow's local SQLite file says, read without MLflow; None where that fails.

    None proves nothing: callers then ask MLflow itself.
    """
    if not home.mlflow_is_local or not home.mlflow_database.is_file():
        return None
    uri = f"{home.mlflow_database.as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            return _read_tables(connection, name)
    except sqlite3.Error:
        return None


def _read_tables(connection: sqlite3.Connection, name: str) -> Registered:
    live = (
        "SELECT version FROM model_versions WHERE name = ? AND current_stage <> 'Deleted_Internal'"
    )
    versions: dict[int, dict[str, str]] = {
        int(version): {} for (version,) in connection.execute(live, (name,))
    }
    tags = "SELECT version, key, value FROM model_version_tags WHERE name = ?"
    for version, key, value in connection.execute(tags, (name,)):
        versions.get(int(version), {})[key] = value
    aliases = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"
    rows = connection.execute(aliases, (name,)).fetchall()
    return Registered(versions, {alias: int(version) for alias, version in rows})


def look(client: Any, name: str) -> Registered:
    """What the registry says through MLflow."""
    versions: dict[int, Mapping[str, str]] = {}
    token = None
    while True:
        found = client.search_model_versions(f"name = '{name}'", page_token=token)
        versions |= {int(item.version): dict(item.tags) for item in found}
        if not (token := found.token):
            break
    models = client.search_registered_models(f"name = '{name}'")
    aliases = {alias: int(number) for model in models for alias, number in model.aliases.items()}
    return Registered(versions, aliases)


@contextmanager
def registry_client(home: Home) -> Iterator[Any]:
    """MLflow's client; what it refuses becomes a LineageError that names the registry."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        yield MlflowClient(home.mlflow_uri)
    except MlflowException as error:
        raise LineageError(
            f"The model registry at {home.mlflow_label} refused ({error.error_code}).",
            "Check MLFLOW_TRACKING_URI and that its server runs, then run again.",
        ) from error
