"""The content-addressed artifact store.

An artifact is an immutable directory named by the hash of what made it (its ``Recipe``).
It is built in a temporary sibling, gets its manifest last, is fsynced, then renamed: a
half-written artifact is never visible, the same work is never done twice, and a file that
was changed afterwards is refused when it is read.
"""

import errno
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SHORT = 12  # hex digits of a digest that people are shown


class LineageError(Exception):
    """A stage cannot go on: one sentence that names the thing, one that names the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces. Raises ValueError for NaN and infinities."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest_json(value: object) -> str:
    """SHA-256 of the canonical JSON of ``value``, 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an artifact's bytes; its hash is the artifact's key."""

    kind: str
    inputs: Mapping[str, str]
    """Digest of each input, by role."""
    spec: Mapping[str, Any]
    """The stage's settings, JSON values only."""
    code_version: str
    libraries: tuple[str, ...] = ()
    """Distributions whose installed version changes the result."""

    @property
    def key(self) -> str:
        versions = {name: importlib.metadata.version(name) for name in self.libraries}
        parts = asdict(self) | {"libraries": versions}
        return digest_json(parts)


@dataclass(frozen=True)
class Artifact:
    """The name of a finished directory in the store."""

    kind: str
    key: str
    """Hash of the recipe: what it was made from."""
    digest: str
    """Hash of the content: what it is."""
    summary: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Small JSON values that the stage reported when it built the artifact."""
    reused: bool = field(default=False, compare=False)
    """Whether this materialisation found it in the store."""


class FileEntry(NamedTuple):
    """One line of a manifest."""

    path: str
    size: int
    sha256: str


class ArtifactStore:
    """Directories at ``root/kind/key``, each with a manifest; see the module's docstring."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def build(self, recipe: Recipe, produce: Callable[[Path], Mapping[str, Any]]) -> Artifact:
        """Return the artifact of ``recipe``, made by ``produce(directory)`` unless it exists.

        ``produce`` writes files below the directory and returns the summary. Raises whatever
        it raises; nothing of a failed build stays behind.
        """
        final = self.root / recipe.kind / recipe.key
        if (final / MANIFEST).is_file():
            logger.info("%s: unchanged, found in the artifact store", recipe.kind)
            return self._read(final, reused=True)
        building = final.with_name(f".{final.name[:SHORT]}-{uuid.uuid4().hex[:8]}")
        building.mkdir(parents=True, mode=0o700)
        try:
            summary = dict(produce(building))
            self._seal(building, recipe, summary)
            self._publish(building, final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return self._read(final, reused=False)

    def path(self, artifact: Artifact) -> Path:
        """The artifact's directory, after every file was compared with the manifest.

        Raises LineageError when it is missing or when any byte was changed.
        """
        directory = self.root / artifact.kind / artifact.key
        if not (directory / MANIFEST).is_file():
            raise LineageError(
                f"The {artifact.kind} {artifact.key[:SHORT]} is not in the store {self.root}.",
                "Materialise the asset that makes it again.",
            )
        manifest = _load_manifest(directory)
        expected = [FileEntry(**entry) for entry in manifest["files"]]
        if (changed := _first_difference(directory, expected)) or (
            _content_digest(expected) != artifact.digest
        ):
            raise LineageError(
                f"The {artifact.kind} {artifact.key[:SHORT]} was changed after it was built"
                f" ({changed or MANIFEST}).",
                f"Delete {directory} and materialise the asset that makes it again.",
            )
        return directory

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact with this key, or None."""
        directory = self.root / kind / key
        return self._read(directory, reused=True) if (directory / MANIFEST).is_file() else None

    def _seal(self, building: Path, recipe: Recipe, summary: Mapping[str, Any]) -> None:
        files = list(_entries(building))
        manifest = {
            "recipe": asdict(recipe),
            "summary": summary,
            "files": [entry._asdict() for entry in files],
            "digest": _content_digest(files),
        }
        (building / MANIFEST).write_bytes(canonical_json(manifest))
        for path in [*building.rglob("*"), building]:
            _fsync(path)

    def _publish(self, building: Path, final: Path) -> None:
        try:
            building.rename(final)
        except OSError as error:
            # Someone else finished the same recipe first: theirs is as good as ours.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        _fsync(final.parent)

    def _read(self, directory: Path, *, reused: bool) -> Artifact:
        manifest = _load_manifest(directory)
        return Artifact(
            directory.parent.name, directory.name, manifest["digest"], manifest["summary"], reused
        )


def _load_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_bytes())
    except ValueError as error:
        raise LineageError(
            f"{directory / MANIFEST} is not valid JSON.", f"Delete {directory} and run again."
        ) from error
    return manifest


def _entries(directory: Path) -> Iterator[FileEntry]:
    for path in sorted(directory.rglob("*")):
        if path.is_symlink():
            raise LineageError(f"{path} is a symbolic link.", "Artifacts hold plain files only.")
        if path.is_file() and path != directory / MANIFEST:
            name = path.relative_to(directory).as_posix()
            yield FileEntry(name, path.stat().st_size, digest_file(path))


def _content_digest(files: Iterable[FileEntry]) -> str:
    return digest_json([list(entry) for entry in files])


def _first_difference(directory: Path, expected: list[FileEntry]) -> str | None:
    found = list(_entries(directory))
    if found == expected:
        return None
    return min(entry.path for entry in set(found) ^ set(expected))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling that replaces ``path`` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
