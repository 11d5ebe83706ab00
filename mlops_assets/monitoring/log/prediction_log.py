"""The prediction log: an index of the Parquet parts that its segments were compacted into.

An empty or missing log is healthy: the drift report then gives no verdict. The gateway's request
log is one such log.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.artifacts import SHORT, Artifact, ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.log.duplicate_ids import distinct_rows
from mlops_assets.monitoring.log.parts import compact
from mlops_assets.monitoring.log.segments import Segment, find_segments, resolve
from mlops_assets.monitoring.log.window import PARTS
from mlops_assets.monitoring.shown_time import to_the_second
from mlops_assets.monitoring_refs import PredictionLogRef

logger = logging.getLogger(__name__)

DUPLICATE = "duplicate id"


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
        20_000,
        ge=1,
        le=1_000_000,
        description="Newest answered requests that are looked at; older ones stay in the parts.",
    )


def collect(store: ArtifactStore, spec: PredictionLogSpec, project: Path) -> PredictionLogRef:
    """Compact the log below ``project`` and list its parts, oldest first, in ``parts.json``.

    Raises LineageError for an unset variable, a file in the directory's place, or when the
    shipped samples were not built.
    """
    segments = find_segments(resolve(spec.directory, project), project)
    parts = [compact(store, segment) for segment in segments]
    recipe = Recipe(
        kind="prediction_log",
        inputs={
            **{s.path.name: part.digest for s, part in zip(segments, parts, strict=True)},
            # A torn tail changes the segment and not its part.
            **{f"segment {s.path.name}": s.sha256 for s in segments},
        },
        spec={"max_records": spec.max_records},
        code_version=code_digest(__name__),
        libraries=("pyarrow",),
    )

    def produce(directory: Path) -> dict[str, Any]:
        return _write_index(store, directory, segments, parts, spec.max_records)

    artifact = store.build(recipe, produce)
    unreadable = sum(artifact.summary["skipped"].values())
    return PredictionLogRef(artifact, artifact.summary["records"], unreadable)


def _write_index(
    store: ArtifactStore,
    directory: Path,
    segments: Sequence[Segment],
    parts: Sequence[Artifact],
    limit: int,
) -> dict[str, Any]:
    runs = distinct_rows(store, parts, limit)
    listed = [
        {"segment": segment.path.name, "bytes": segment.size, "sha256": segment.sha256}
        | {"key": part.key, "digest": part.digest, "rows": used}
        for segment, part, used in zip(segments, parts, runs, strict=True)
    ]
    index = {"max_records": limit, "parts": listed}
    (directory / PARTS).write_text(json.dumps(index, indent=1))
    used = [run for each in runs for run in each]
    repeated = _total(parts, "rows") - sum(run.stop - run.start for run in used)
    return _summary(parts, repeated, sum(run.answered for run in used), limit)


def shown_period(summary: Mapping[str, Any]) -> str:
    """From when to when the log's records are, for people."""
    if not summary["first"]:
        return "no records"
    first, last = (to_the_second(summary[end]) for end in ("first", "last"))
    return f"{first} to {last} UTC"


def release_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many requests each release answered, the busiest first."""
    counts = sorted(summary["releases"].items(), key=lambda item: (-item[1], item[0]))
    return [{"release": name[:SHORT], "answered": count} for name, count in counts]


def _summary(parts: Sequence[Artifact], repeated: int, answered: int, limit: int) -> dict[str, Any]:
    skipped = _added(part.summary["skipped"] for part in parts) + Counter({DUPLICATE: repeated})
    times = sorted(time for part in parts for time in part.summary["times"])
    return {
        "records": min(answered, limit),
        "answered": answered,
        "rows": _total(parts, "rows") - repeated,
        "skipped": dict(sorted(skipped.items())),
        "segments": len(parts),
        "bytes": _total(parts, "bytes"),
        "parquet_bytes": _total(parts, "parquet_bytes"),
        "first": times[0] if times else "",
        "last": times[-1] if times else "",
        "releases": dict(_added(part.summary["releases"] for part in parts)),
    }


def _total(parts: Iterable[Artifact], name: str) -> int:
    return sum(part.summary[name] for part in parts)


def _added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total
