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
    """Directories at ``root/kind/key``, each with a manifest; see the module's docstring.

    ``checkpoints/key`` is where a long build may keep what lets it go on after a crash. It is
    deleted when the artifact is sealed.
    """

    def __init__(self, root: Path, checkpoints: Path | None = None) -> None:
        self.root = root
        self.checkpoints = checkpoints or root / "checkpoints"

    def build(self, recipe: Recipe, produce: Callable[[Path], Mapping[str, Any]]) -> Artifact:
        """Return the artifact of ``recipe``, made by ``produce(directory)`` unless it exists.

        ``produce`` writes files below the directory and returns the summary. Raises whatever
        it raises; nothing of a failed build stays behind.
        """
        key = recipe.key  # asking for the versions of libraries takes milliseconds
        final = self.root / recipe.kind / key
        reused = (final / MANIFEST).is_file()
        if reused:
            logger.info("%s: unchanged, found in the artifact store", recipe.kind)
        else:
            header = {"recipe": asdict(recipe)}
            write_sealed(final, lambda path: header | {"summary": dict(produce(path))})
        shutil.rmtree(self.checkpoints / key, ignore_errors=True)
        return self._read(final, reused=reused)

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
        fault = find_fault(directory)
        if fault or _load_manifest(directory)["digest"] != artifact.digest:
            raise LineageError(
                f"The {artifact.kind} {artifact.key[:SHORT]} was changed after it was built"
                f" ({fault or MANIFEST}).",
                f"Delete {directory} and materialise the asset that makes it again.",
            )
        return directory

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact with this key, or None."""
        directory = self.root / kind / key
        return self._read(directory, reused=True) if (directory / MANIFEST).is_file() else None

    def recipe(self, artifact: Artifact) -> Recipe:
        """What the artifact was made from, as its manifest says. Raises as ``path`` does."""
        return Recipe(**_load_manifest(self.path(artifact))["recipe"])

    def find_content(self, kind: str, digest: str) -> Artifact | None:
        """An artifact with this content, or None; looks at the manifest of each of the kind."""
        manifests = sorted((self.root / kind).glob(f"*/{MANIFEST}"))
        found = (self._read(manifest.parent, reused=True) for manifest in manifests)
        return next((artifact for artifact in found if artifact.digest == digest), None)

    def _read(self, directory: Path, *, reused: bool) -> Artifact:
        manifest = _load_manifest(directory)
        return Artifact(
            directory.parent.name, directory.name, manifest["digest"], manifest["summary"], reused
        )


def write_sealed(final: Path, produce: Callable[[Path], Mapping[str, Any]]) -> None:
    """Make ``final`` whole or not at all, whenever the process dies.

    ``produce`` writes into a temporary sibling and returns what the manifest says besides the
    files. The manifest is written last, then everything is fsynced and renamed.
    """
    building = final.with_name(f".{final.name[:SHORT]}-{uuid.uuid4().hex[:8]}")
    building.mkdir(parents=True, mode=0o700)
    try:
        _seal(building, produce(building))
        _publish(building, final)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def find_fault(directory: Path) -> str | None:
    """Which file is not as the manifest says, and in what; None when all are as written."""
    try:
        manifest = _load_manifest(directory)
        expected = {entry["path"]: FileEntry(**entry) for entry in manifest["files"]}
        found = {entry.path: entry for entry in _entries(directory)}
        if manifest["digest"] != _content_digest(expected.values()):
            return f"{MANIFEST} is damaged"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    except LineageError as error:
        return error.problem
    names = sorted(expected.keys() | found.keys())
    faults = (_difference(name, expected.get(name), found.get(name)) for name in names)
    return next(filter(None, faults), None)


def _difference(name: str, expected: FileEntry | None, found: FileEntry | None) -> str | None:
    if found == expected:
        return None
    if found is None:
        return f"{name} is missing"
    if expected is None:
        return f"{name} was added"
    if found.size != expected.size:
        return f"{name} has {found.size:,} bytes instead of {expected.size:,}"
    return f"{name} has another SHA-256 than when it was written"


def list_files(directory: Path) -> dict[str, Any]:
    """What a manifest says of the files below ``directory``: entries, and the content's digest."""
    files = list(_entries(directory))
    return {"files": [entry._asdict() for entry in files], "digest": _content_digest(files)}


def read_listing(content: bytes) -> tuple[str, dict[str, FileEntry]]:
    """The digest that the entries of a manifest really have, and the entries by path.

    Raises ValueError when it is none.
    """
    try:
        entries = [FileEntry(**entry) for entry in json.loads(content)["files"]]
    except (KeyError, TypeError) as error:
        raise ValueError("not a list of files") from error
    return _content_digest(entries), {entry.path: entry for entry in entries}


def _seal(building: Path, header: Mapping[str, Any]) -> None:
    (building / MANIFEST).write_bytes(canonical_json({**header, **list_files(building)}))
    for path in [*building.rglob("*"), building]:
        _fsync(path)


def _publish(building: Path, final: Path) -> None:
    try:
        building.rename(final)
    except OSError as error:
        # Someone else finished the same recipe first: theirs is as good as ours.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    _fsync(final.parent)


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
