"""Segments of the request log that were deleted because an artifact holds their records.

In a segment's place stands a small file, ``NAME.retired.json``: which part of the prediction log
holds its records, and what they add to the usage of each day. Serving writes it; monitoring finds
the part by it, and the budget ledger is made again with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from mlops_assets.artifacts import Artifact, LineageError, atomic_write

LOG_PART = "log_part"
"""Kind of the artifacts that hold a segment's records, named by its SHA-256."""
SUFFIX = ".retired.json"


@dataclass(frozen=True)
class RetiredSegment:
    """What is known of a segment that was deleted."""

    segment: str
    """Its file's name."""
    bytes: int
    sha256: str
    part: Artifact
    usage: tuple[tuple[str, str, str, int, int, int, int], ...]
    """Day, scope and name; requests, tokens read and written, billionths of the currency."""


_RETIRED = TypeAdapter(RetiredSegment)


def write_retired(directory: Path, retired: RetiredSegment) -> None:
    """Keep it beside the segment. It counts from when the segment is gone."""
    with atomic_write(_path(directory, retired.segment)) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(orjson.dumps(retired))


def retired_segments(directory: Path, first: str = "") -> Iterator[RetiredSegment]:
    """Those whose file is gone, oldest first, from the segment named ``first`` on.

    Raises LineageError for one that cannot be read.
    """
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        segment = path.name.replace(SUFFIX, ".jsonl")
        if segment >= first and not (directory / segment).exists():
            yield _read(path)


def _path(directory: Path, segment: str) -> Path:
    return directory / segment.replace(".jsonl", SUFFIX)


def _read(path: Path) -> RetiredSegment:
    try:
        return _RETIRED.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise LineageError(
            f"{path} cannot be read: it stands for a segment that was deleted.",
            "Bring it back from a backup.",
        ) from error
