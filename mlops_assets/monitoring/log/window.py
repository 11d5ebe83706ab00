"""The newest records of the log, wherever its parts hold them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError
from mlops_assets.monitoring.log.parts import RECORDS, schema
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.retired_segments import LOG_PART

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "parts.json"


@dataclass(frozen=True)
class PartRows:
    """Rows ``start`` to ``stop`` of one part, the latter left out."""

    part: Artifact
    start: int
    stop: int


def read_index(store: ArtifactStore, ref: PredictionLogRef) -> dict[str, Any]:
    """What ``parts.json`` says. Raises LineageError for a log from before there were parts."""
    path = store.path(ref.artifact) / PARTS
    if not path.is_file():
        raise LineageError(
            "The latest prediction log was made before logs had parts.",
            "Run the job `monitor` once.",
        )
    index: dict[str, Any] = json.loads(path.read_bytes())
    return index


def newest(
    store: ArtifactStore, ref: PredictionLogRef, records: int | None = None
) -> list[PartRows]:
    """The rows from the newest ``records`` answered requests on, in order of time.

    Requests that failed lie between them, and have no share in the count. None stands for as many
    as the asset's own ``max_records``.
    """
    index = read_index(store, ref)
    left = index["max_records"] if records is None else records
    found: list[PartRows] = []
    for part in reversed(index["parts"]):
        artifact = Artifact(LOG_PART, part["key"], part["digest"])
        for start, stop, answered in reversed(part["rows"]):
            if left <= 0:
                return found[::-1]
            rows = PartRows(artifact, start, stop)
            found.append(rows if answered < left else _last(store, rows, left))
            left -= answered
    return found[::-1]


def read(store: ArtifactStore, rows: PartRows, columns: Sequence[str] | None = None) -> "pa.Table":
    """These rows, with these columns of ``parts.schema`` or all; reads no more than it must.

    A column that the part does not have, because it outlived the log that it was made of and the
    columns of then, is null. Raises LineageError when the part is missing or was changed.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(store.path(rows.part) / RECORDS) as file:
        groups, first, at = [], 0, 0
        for number in range(file.num_row_groups):
            behind = at + file.metadata.row_group(number).num_rows
            if behind <= rows.start:
                first = behind
            elif at < rows.stop:
                groups.append(number)
            at = behind
        table = file.read_row_groups(groups, columns=None if columns is None else list(columns))
    return _as_of_now(table, columns).slice(rows.start - first, rows.stop - rows.start)


def _as_of_now(table: "pa.Table", columns: Sequence[str] | None) -> "pa.Table":
    import pyarrow as pa

    today = schema()
    for name in today.names if columns is None else columns:
        if name not in table.column_names:
            nothing = pa.nulls(len(table), today.field(name).type)
            table = table.append_column(today.field(name), nothing)
    return table


def _last(store: ArtifactStore, rows: PartRows, answered: int) -> PartRows:
    """The rows from the ``answered``-th answer on, counted from the end."""
    flags = read(store, rows, ["answered"])["answered"].to_numpy()
    return PartRows(rows.part, rows.start + int(flags.nonzero()[0][-answered]), rows.stop)
