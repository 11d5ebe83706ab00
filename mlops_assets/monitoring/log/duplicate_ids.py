"""Which rows of the parts are read: every id once.

The gateway never uses an id twice; a segment that somebody copied beside itself does.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlops_assets.artifacts import Artifact, ArtifactStore
from mlops_assets.monitoring.log.window import PartRows, read


class Run(NamedTuple):
    """Rows ``start`` to ``stop`` of a part, the latter left out."""

    start: int
    stop: int
    answered: int
    """How many of them are answers to users."""


def distinct_rows(store: ArtifactStore, parts: Sequence[Artifact], limit: int) -> list[list[Run]]:
    """The rows of each part whose id was not there before, as few runs as hold them.

    Only the newest parts that hold ``limit`` answers together are looked into, so that memory does
    not grow with the log: of older ones every row counts.
    """
    runs = [_whole(part) for part in parts]
    begin = _first_looked_into(parts, limit)
    tables = [
        read(store, PartRows(part, 0, part.summary["rows"]), ["id", "answered"])
        for part in parts[begin:]
        if part.summary["rows"]
    ]
    places = [at for at, part in enumerate(parts) if at >= begin and part.summary["rows"]]
    for at, new, table in zip(places, _are_new(tables), tables, strict=True):
        if not new.all():
            runs[at] = _runs(new, table["answered"].to_numpy())
    return runs


def _whole(part: Artifact) -> list[Run]:
    rows = part.summary["rows"]
    return [Run(0, rows, part.summary["answered"])] if rows else []


def _first_looked_into(parts: Sequence[Artifact], limit: int) -> int:
    answered = 0
    for at in range(len(parts) - 1, -1, -1):
        answered += parts[at].summary["answered"]
        if answered >= limit:
            return at
    return 0


def _are_new(tables: Sequence[Any]) -> list[Any]:
    """For each table, for each row, whether its id stands in no row before it."""
    if not tables:
        return []
    import numpy as np
    import pyarrow as pa

    encoded = pa.concat_tables(tables)["id"].combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy()
    new = np.zeros(len(numbers), dtype=bool)
    new[np.unique(numbers, return_index=True)[1]] = True
    ends = np.cumsum([len(table) for table in tables])
    return list(np.split(new, ends[:-1]))


def _runs(new: Any, answered: Any) -> list[Run]:
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[False], new, [False]]).astype(int)))
    return [
        Run(int(start), int(stop), int(answered[start:stop].sum()))
        for start, stop in edges.reshape(-1, 2)
    ]
