"""One segment of the log as one Parquet artifact, its part.

A part is named by its segment's SHA-256: a segment that is complete is compacted once, ever, and
only the one that is still written to is made anew. A segment is read a batch at a time, whatever
its size. A line that cannot be used is skipped and counted by reason; every other line is a row,
in the log's order, which is that of time. Requests that failed are rows too: ``answered`` tells
them apart.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mlops_assets.artifacts import SHORT, Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.log.segments import Segment, lines
from mlops_assets.request_record import SHADOW, RequestRecord
from mlops_assets.retired_segments import LOG_PART

RECORDS = "records.parquet"
BATCH_ROWS, BATCH_BYTES = 8192, 8 * 1024**2  # what is held in memory at once
TEXTS = ("release", "arm", "tenant", "user", "feature", "prompt", "model", "cached", "finish")
MAPS = ("slices", "experiment")

Count = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, kw_only=True)
class LoggedRequest(RequestRecord):
    """A line of any log: one that states no status holds answered requests alone."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    status: Annotated[int, Field(ge=0, le=999)] = 200
    tokens_in: Count = 0
    tokens_out: Count = 0


_RECORD = TypeAdapter(LoggedRequest)


def schema() -> Any:
    """The columns of ``records.parquet``.

    ``messages`` is JSON text; ``timestamp`` is in UTC; ``answered`` says that a user got this
    answer: status 200, not the shadow's, and the request holds a user's message.
    """
    import pyarrow as pa

    text, mapped = pa.string(), pa.map_(pa.string(), pa.string())
    return pa.schema(
        [
            ("id", text),
            ("timestamp", pa.timestamp("us", tz="UTC")),
            ("answered", pa.bool_()),
            ("user_named", pa.bool_()),
            *((name, text) for name in TEXTS),
            *((name, text) for name in ("messages", "output")),
            *((name, mapped) for name in MAPS),
            *((name, pa.int64()) for name in ("tokens_in", "tokens_out")),
            *((name, pa.float64()) for name in ("cost", "latency_ms", "first_byte_ms")),
            ("error", text),
            ("status", pa.int16()),
            ("trace", text),
        ]
    )


def compact(store: ArtifactStore, segment: Segment) -> Artifact:
    """The segment's part; its summary counts rows, answers, and lines skipped by reason.

    Raises LineageError when the segment was deleted and its part is not there.
    """
    if segment.part is not None:
        return _kept(store, segment, segment.part)
    recipe = Recipe(
        kind=LOG_PART,
        inputs={"segment": segment.sha256},
        spec={},
        code_version=code_digest(__name__),
        libraries=("pyarrow",),
    )
    # A line of the log for each of a hundred parts that were found would be noise.
    found = store.find(recipe.kind, recipe.key)
    return found or store.build(recipe, lambda directory: _write(directory, segment))


def _kept(store: ArtifactStore, segment: Segment, part: Artifact) -> Artifact:
    found = store.find(part.kind, part.key)
    if found is None or found.digest != part.digest:
        raise LineageError(
            f"{part.kind} {part.key[:SHORT]}, which holds the records of the deleted segment"
            f" {segment.path}, is not in the store {store.root}.",
            "Bring it back from a backup.",
        )
    return found


def parse(line: bytes | None) -> tuple[LoggedRequest | None, str]:
    """The request of one line, or None and the reason."""
    if line is None:
        return None, "line too long"
    try:
        record = _RECORD.validate_python(orjson.loads(line.rstrip(b"\n")))
        moment(record.timestamp)
    except orjson.JSONDecodeError as error:
        return None, _why_no_json(line, error)
    except ValidationError:
        return None, "not a record"
    except (ValueError, OverflowError):
        return None, "no time"
    return record, ""


def moment(timestamp: str) -> datetime:
    """The time in UTC; one that names no zone is in UTC. Raises ValueError, OverflowError."""
    time = datetime.fromisoformat(timestamp)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def is_answered(record: LoggedRequest) -> bool:
    """Whether a user got this answer to something that a user wrote."""
    if record.status != 200 or record.arm == SHADOW:
        return False
    return any(each.get("role") == "user" and each.get("content") for each in record.messages)


def _why_no_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    # A gateway closes off what the one before it left torn: then it ends early and has its end.
    if not line.endswith(b"\n") or "unexpected end of data" in error.msg:
        return "torn line"
    return "not UTF-8" if "UTF-8" in error.msg else "not JSON"


def _write(directory: Path, segment: Segment) -> dict[str, Any]:
    import pyarrow.parquet as pq

    skipped: Counter[str] = Counter()
    releases: Counter[str] = Counter()
    times: list[datetime] = []
    rows = 0
    with pq.ParquetWriter(directory / RECORDS, schema(), compression="zstd") as writer:
        for batch in _batches(segment, skipped):
            columns = _columns(batch)
            writer.write_table(_table(columns))
            rows += len(batch)
            releases.update(compress(columns["release"], columns["answered"]))
            times = [
                min([*times[:1], *columns["timestamp"]]),
                max([*times[1:], *columns["timestamp"]]),
            ]
    return {
        "rows": rows,
        "answered": releases.total(),
        "skipped": dict(sorted(skipped.items())),
        "releases": dict(releases),
        "times": [time.isoformat() for time in times],
        "bytes": segment.size,
        "parquet_bytes": (directory / RECORDS).stat().st_size,
    }


def _batches(segment: Segment, skipped: Counter[str]) -> Iterator[Sequence[LoggedRequest]]:
    batch: list[LoggedRequest] = []
    size = 0
    for line in lines(segment):
        record, problem = parse(line)
        if record is None or line is None:
            skipped[problem] += 1
            continue
        batch.append(record)
        size += len(line)
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _columns(batch: Sequence[LoggedRequest]) -> dict[str, list[Any]]:
    rows = [vars(record) for record in batch]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns |= {name: [list(each.items()) for each in columns[name]] for name in MAPS}
    columns["timestamp"] = [moment(each) for each in columns["timestamp"]]
    columns["messages"] = [orjson.dumps(each).decode() for each in columns["messages"]]
    return columns | {"answered": [is_answered(record) for record in batch]}


def _table(columns: dict[str, list[Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pydict(columns, schema=schema())
