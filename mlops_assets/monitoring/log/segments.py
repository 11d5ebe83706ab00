"""The segments of a log: files of JSON lines that are appended to while somebody reads them.

Each is cut at the size that it had when the stage began: what was hashed is what is read, and a
half-written last line is a torn line, not an error. A missing log is no error either, because a
system that nobody has called yet is healthy.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlops_assets.artifacts import Artifact, LineageError
from mlops_assets.home import Home
from mlops_assets.retired_segments import retired_segments

logger = logging.getLogger(__name__)

SAMPLES = Path("data/production")
"""Below the project: the samples that a DVC stage builds, absent until it has run."""
LONGEST_LINE = 64 * 1024**2
"""Bytes that one line may have; a longer one is passed over without being held in memory."""


@dataclass(frozen=True)
class Segment:
    """The part of a file that existed when the stage began."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    part: Artifact | None = None
    """What holds its records where the file was deleted since."""


def resolve(directory: str, project: Path) -> Path:
    """The absolute path of the log. Raises LineageError for a variable that is not set."""
    expanded = os.path.expandvars(Home.fill(directory))
    if "$" in expanded:
        raise LineageError(
            f"The prediction log's directory {directory!r} names an environment variable that"
            " is not set.",
            "Set the variable, or change prediction_log.directory in the profile.",
        )
    return (project / Path(expanded).expanduser()).resolve()


def find_segments(directory: Path, project: Path) -> list[Segment]:
    """The segments in the order of their names, as they are now, those with them that were deleted
    because a part holds their records.

    Raises LineageError for a file in the directory's place, or when the shipped samples were not
    built.
    """
    if not directory.exists():
        if directory.is_relative_to((project / SAMPLES).resolve()):
            raise LineageError(
                f"The sample of production records {directory} has not been built.",
                "Run `dvc repro data/dvc.yaml` or the job `lineage` once.",
            )
        logger.warning("no prediction log at %s: nothing was recorded yet", directory)
        return []
    if not directory.is_dir():
        raise LineageError(
            f"The prediction log {directory} is not a directory.",
            "Point prediction_log.directory at the directory that holds the segments.",
        )
    gone = [
        Segment(directory / each.segment, each.bytes, each.sha256, each.part)
        for each in retired_segments(directory)
    ]
    found = [*gone, *(_segment(path) for path in directory.glob("*.jsonl"))]
    return sorted(found, key=lambda segment: segment.path.name)


def lines(segment: Segment) -> Iterator[bytes | None]:
    """The lines that are not blank, each with its end where it has one; None for one that is longer
    than ``LONGEST_LINE``."""
    left = segment.size
    with segment.path.open("rb") as stream:
        while left and (line := stream.readline(min(left, LONGEST_LINE))):
            left -= len(line)
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                left -= _pass_over(stream, left)
                yield None
            elif line.strip():
                yield line


def _pass_over(stream: BinaryIO, left: int) -> int:
    """Read to the line's end; returns how many bytes that took."""
    passed = 0
    while passed < left and (more := stream.readline(min(left - passed, 1 << 20))):
        passed += len(more)
        if more.endswith(b"\n"):
            break
    return passed


def _segment(path: Path) -> Segment:
    size, hasher = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as stream:
        left = size
        while left and (block := stream.read(min(left, 1 << 20))):
            hasher.update(block)
            left -= len(block)
    return Segment(path, size - left, hasher.hexdigest())
