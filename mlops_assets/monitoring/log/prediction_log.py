"""Production's records, read from the JSONL segments that the serving side appends.

A segment may be written to while it is read. So each is cut at the size it had when the
stage began: what was hashed is what is read, and a half-written last line is a torn line,
not an error. A line that cannot be used is skipped and counted by reason. An empty or
missing log is no error either, because a system that nobody has called yet is healthy: the
drift report then gives no verdict. The gateway's request log is one such log: of its records those
count that a user got an answer by.
"""

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.refs import PredictionLogRef, PredictionRecord, write_jsonl
from mlops_assets.request_record import SHADOW

logger = logging.getLogger(__name__)

RECORDS = "records.jsonl"
SAMPLES = Path("data/production")
"""Below the project: the samples that a DVC stage builds, absent until it has run."""

_RECORD = TypeAdapter(PredictionRecord)


class PredictionLogSpec(BaseModel):
    """Which records to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str = Field(
        "data/production/unshifted",
        min_length=1,
        description="Directory of *.jsonl segments, oldest first by name; relative to the"
        " project; $NAME stands for an environment variable.",
    )
    max_records: int = Field(
        20_000, ge=1, le=1_000_000, description="Newest records that are kept; older are left out."
    )


@dataclass(frozen=True)
class Segment:
    """The part of a file that existed when the stage began."""

    path: Path
    size: int
    """Bytes."""
    sha256: str


def collect(store: ArtifactStore, spec: PredictionLogSpec, project: Path) -> PredictionLogRef:
    """Read the log below ``project`` into ``records.jsonl``.

    Raises LineageError for an unset variable, a file in the directory's place, or when the
    shipped samples were not built.
    """
    segments = find_segments(resolve(spec.directory, project), project)
    recipe = Recipe(
        kind="prediction_log",
        inputs={segment.path.name: segment.sha256 for segment in segments},
        spec={"max_records": spec.max_records},
        code_version=code_digest(__name__),
    )

    def produce(directory: Path) -> dict[str, Any]:
        return _write(directory, segments, spec.max_records)

    return _ref(store.build(recipe, produce))


def resolve(directory: str, project: Path) -> Path:
    """The absolute path of the log. Raises LineageError for a variable that is not set."""
    expanded = os.path.expandvars(directory)
    if "$" in expanded:
        raise LineageError(
            f"The prediction log's directory {directory!r} names an environment variable that"
            " is not set.",
            "Set the variable, or change prediction_log.directory in the profile.",
        )
    return (project / Path(expanded).expanduser()).resolve()


def find_segments(directory: Path, project: Path) -> list[Segment]:
    """The segments in the order of their names, as they are now."""
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
    return [_segment(path) for path in sorted(directory.glob("*.jsonl"))]


def _segment(path: Path) -> Segment:
    size, hasher = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as stream:
        left = size
        while left and (block := stream.read(min(left, 1 << 20))):
            hasher.update(block)
            left -= len(block)
    return Segment(path, size - left, hasher.hexdigest())


def _write(directory: Path, segments: Sequence[Segment], limit: int) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    newest = deque(_records(segments, skipped), maxlen=limit)
    write_jsonl(directory / RECORDS, newest)
    times = sorted(record.timestamp for record in newest)
    return {
        "records": len(newest),
        "skipped": dict(sorted(skipped.items())),
        "segments": len(segments),
        "first": times[0] if times else "",
        "last": times[-1] if times else "",
        "releases": dict(Counter(record.release for record in newest)),
    }


def _records(segments: Sequence[Segment], skipped: Counter[str]) -> Iterator[PredictionRecord]:
    seen: set[str] = set()
    for segment in segments:
        for line in _lines(segment):
            record, problem = parse(line)
            if record is not None and record.id in seen:
                problem = "duplicate id"
            if record is None or problem:
                skipped[problem] += 1
                continue
            seen.add(record.id)
            yield record


def _lines(segment: Segment) -> Iterator[bytes]:
    left = segment.size
    with segment.path.open("rb") as stream:
        while left and (line := stream.readline(left)):
            left -= len(line)
            if line.strip():
                yield line


def parse(line: bytes) -> tuple[PredictionRecord | None, str]:
    """The record of one line, or None and the reason."""
    try:
        fields = json.loads(line.decode("utf-8"))
        record = _RECORD.validate_python(fields)
    except UnicodeDecodeError:
        return None, "not UTF-8"
    except ValidationError:
        return None, "not a record"
    except (ValueError, RecursionError):
        return None, "not JSON" if line.endswith(b"\n") else "torn line"
    if fields.get("status", 200) != 200 or fields.get("arm") == SHADOW:
        return None, "no answer to a user"
    if not any(item.get("role") == "user" and item.get("content") for item in record.messages):
        return None, "no user message"
    return record, ""


def _ref(artifact: Artifact) -> PredictionLogRef:
    skipped = sum(artifact.summary["skipped"].values())
    return PredictionLogRef(artifact, artifact.summary["records"], skipped)


def read_records(path: Path) -> list[PredictionRecord]:
    """The records of an artifact's ``records.jsonl``."""
    with path.open("rb") as stream:
        return [_RECORD.validate_json(line) for line in stream]
