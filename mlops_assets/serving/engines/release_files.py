"""The files of a release while it is served: verified, and watched for the slightest touch.

A file that is rewritten in place changes the weights of an engine that has mapped it, so hashing
before the start is not enough. Between two hashings we look at what the kernel notes of every
file (inode, size, times): the time of change cannot be set by hand, so a file that was swapped
and swapped back shows it too.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.artifacts import Artifact, LineageError, find_fault
from mlops_assets.home import Home
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_check import verify_bundle

Mark = tuple[str, int, int, int, int]


def marks(directories: Iterable[Path]) -> tuple[Mark, ...]:
    """What the kernel notes of each directory and of everything below it."""
    return tuple(_mark(path) for directory in directories for path in _below(directory))


def _below(directory: Path) -> Iterator[Path]:
    yield directory
    yield from sorted(directory.rglob("*"))


def _mark(path: Path) -> Mark:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return (str(path), 0, 0, 0, 0)
    return (str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True)
class ReleaseFiles:
    """Everything in the store that a release consists of and that its engine reads."""

    home: Home
    entry: LedgerEntry
    read: Sequence[Artifact]
    """What the engine reads beside the bundle's own artifacts."""

    def marks(self) -> tuple[Mark, ...]:
        """As they are now."""
        bundle = self.entry.decision.bundle
        prompt = [bundle.prompt] if isinstance(bundle.prompt, Artifact) else []
        artifacts = [bundle.base, bundle.adapter, *prompt, *self.read]
        root = self.home.store.root
        return marks(root / artifact.kind / artifact.key for artifact in artifacts)

    def verify(self) -> None:
        """Hash every byte. Raises LineageError.

        The approval itself is verified when the release is first asked for: a ledger that
        cannot be reached must not end what is served.
        """
        verify_bundle(self.home, self.entry)
        for artifact in self.read:
            self.home.store.path(artifact)


def copy_verified(source: Path, copy: Path) -> tuple[Mark, ...]:
    """A copy of an artifact for one engine alone, byte for byte; returns its marks.

    Raises LineageError when it is not what the manifest in ``source`` says.
    """
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    copy.chmod(0o700)
    return verify_copy(copy)


def verify_copy(copy: Path) -> tuple[Mark, ...]:
    """Hash the copy; returns its marks from before. Raises LineageError."""
    before = marks([copy])
    if fault := find_fault(copy):
        raise LineageError(
            f"The engine's copy of the served model was changed ({fault}).",
            "It is made again from the store when the engine starts again.",
        )
    return before


def remove_copies(engines: Path) -> None:
    """Remove what a gateway that was killed left of its engines, but for their logs."""
    for path in engines.glob("*/"):
        shutil.rmtree(path)
