"""Which artifacts a document names, and which those name in turn.

A document is the JSON of anything: a ref, a row of the ledger, a manifest, a version's tags. An
artifact is named by any text in it that is its key, its digest, the SHA-256 of one of its
files, the address it was downloaded from, or the digest of the bundle that it packages. So
nothing has to know how the documents of other stages are written; at worst too much is kept.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import MANIFEST, SHORT, ArtifactStore

PACKAGED = ("bundle", "address")
"""Roles of a recipe's inputs that stand for the artifact itself: of packages, downloads and
served models."""
NAMED_BY_INPUT = ("mlflow_model", "served_model", "source")


@dataclass(frozen=True)
class Sealed:
    """A finished artifact as it lies in the store."""

    kind: str
    key: str
    path: Path
    size: int
    """Bytes of its files, the manifest's included."""
    made: datetime
    """When it was sealed."""
    names: frozenset[str]
    mentions: frozenset[str]
    """Every text in its manifest but its own files."""

    def __str__(self) -> str:
        return f"{self.kind} {self.key[:SHORT]}"


def texts(document: Any) -> Iterator[str]:
    """Every text in a JSON value; what is JSON written as text is looked into, too."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield str(name)
            yield from texts(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from texts(value)
    elif isinstance(document, str):
        yield document
        if document.startswith("{"):
            try:
                yield from texts(json.loads(document))
            except ValueError:
                return


def read_store(store: ArtifactStore) -> list[Sealed]:
    """Every artifact with a manifest, by kind and key. One that cannot be read names nothing,
    and is left to whoever looks after it: it is not listed."""
    manifests = sorted(store.root.glob(f"[!.]*/[!.]*/{MANIFEST}"))
    found = (_read(path) for path in manifests if not path.parents[1].is_symlink())
    return [sealed for sealed in found if sealed is not None]


def _read(manifest: Path) -> Sealed | None:
    directory = manifest.parent
    try:
        content = json.loads(manifest.read_bytes())
        files, recipe = content["files"], content["recipe"]
        names = {directory.name, content["digest"]}
        # An empty file's digest is that of every empty file.
        names |= {entry["sha256"] for entry in files if entry["size"]}
        if directory.parent.name in NAMED_BY_INPUT:
            names |= {recipe["inputs"][role] for role in PACKAGED if role in recipe["inputs"]}
        size = sum(entry["size"] for entry in files) + manifest.stat().st_size
    except (ValueError, KeyError, TypeError):
        return None
    mentions = frozenset(texts({"recipe": recipe, "summary": content.get("summary")}))
    made = datetime.fromtimestamp(manifest.stat().st_mtime, UTC)
    kind = directory.parent.name
    return Sealed(kind, directory.name, directory, size, made, frozenset(names), mentions)


class Names:
    """Finds artifacts by what a document calls them."""

    def __init__(self, store: Iterable[Sealed]) -> None:
        self._by_name: dict[str, list[Sealed]] = {}
        for sealed in store:
            for name in sealed.names:
                self._by_name.setdefault(name, []).append(sealed)

    def find(self, mentioned: Iterable[str]) -> list[Sealed]:
        """The artifacts that these texts name, each once."""
        found = [sealed for text in mentioned for sealed in self._by_name.get(text, ())]
        return list(dict.fromkeys(found))
