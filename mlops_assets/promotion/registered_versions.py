"""Every version in the registry, with where its files lie; and how one is deleted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from mlops_assets.home import Home
from mlops_assets.promotion.registry import registry_client

UPLOAD_DEPTH = 3  # RUN/artifacts/FOLDER below MLflow's artifacts


@dataclass(frozen=True)
class RegistryVersion:
    """A registered version; two with the same model and number are the same."""

    model: str
    number: int
    tags: Mapping[str, str] = field(compare=False)
    aliases: tuple[str, ...] = field(compare=False)
    made: datetime = field(compare=False)
    files: tuple[str, ...] = field(compare=False)
    """The last parts of its directory's path, ``RUN/artifacts/FOLDER``: the rest changes when a
    home is moved."""

    @property
    def foreign(self) -> bool:
        """Whether somebody else registered it: it lacks what every version of ours has."""
        return not self.tags.get("bundle_digest")

    def __str__(self) -> str:
        return f"{self.model} version {self.number}"


def read_versions(home: Home) -> list[RegistryVersion]:
    """All versions of all models. Raises LineageError when the registry cannot be asked."""
    if home.mlflow_is_local and not home.mlflow_database.is_file():
        return []
    with registry_client(home) as client:
        models = _pages(client.search_registered_models)
        named = {model.name: _by_version(model.aliases) for model in models}
        return [
            RegistryVersion(
                found.name,
                int(found.version),
                dict(found.tags),
                tuple(sorted(named.get(found.name, {}).get(int(found.version), ()))),
                datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
                PurePosixPath(urlsplit(found.source).path).parts[-UPLOAD_DEPTH:],
            )
            for found in _pages(client.search_model_versions)
        ]


def delete_versions(home: Home, places: Sequence[tuple[str, int]]) -> None:
    """Delete versions of the registry; one that is gone already is no error.

    Raises LineageError when the registry cannot be asked, or refuses.
    """
    if not places:
        return
    with registry_client(home) as client:
        present = {(v.name, int(v.version)) for v in _pages(client.search_model_versions)}
        for model, number in places:
            if (model, number) in present:
                client.delete_model_version(model, str(number))


def _by_version(aliases: Mapping[str, Any]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for alias, version in aliases.items():
        found.setdefault(int(version), []).append(alias)
    return found


def _pages(search: Any) -> Iterable[Any]:
    token = None
    while True:
        found = search(page_token=token)
        yield from found
        if not (token := found.token):
            return
