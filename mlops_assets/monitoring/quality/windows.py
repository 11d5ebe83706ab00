"""The requests whose quality is measured: the newest ones, and those that they are compared with.

A request counts that a user got an answer to, that failed, or that its user gave up on. What was
refused as the caller's own mistake says nothing of answers, and what the shadow answers no user
sees.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.log.window import PartRows, newest, read
from mlops_assets.monitoring.quality.quality_spec import QualitySpec
from mlops_assets.monitoring_refs import PredictionLogRef
from mlops_assets.request_record import LEFT, SHADOW

EVERY = 2**62
"""Answered requests: the whole log."""
FAILED = 500
"""Status from which on it was not the caller's fault."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the log, without its texts."""

    id: str
    timestamp: datetime
    release: str
    user: str
    status: int
    answered: bool
    latency_ms: float
    cost: float
    tokens_out: int
    cached: str
    slices: Mapping[str, str]


@dataclass(frozen=True)
class Windows:
    """Requests in order of time."""

    current: Sequence[Asked]
    baseline: Sequence[Asked]
    against: str
    """What the baseline is, for people."""
    history: Sequence[Sequence[Asked]]
    """Windows one after the other, the current one last."""


class LoggedRequests:
    """The newest rows of the prediction log, as many as that looks at, read once."""

    def __init__(self, store: ArtifactStore, log: PredictionLogRef) -> None:
        self._store, self._log = store, log
        table = self._read(newest(store, log), ["arm", *Asked.__slots__])
        self._table = None if table is None else _that_count(table)

    def since(self, time: datetime, columns: Sequence[str]) -> Any:
        """The rows from a time on, with these columns of the log's parts; None without any."""
        import pyarrow.compute as pc

        if self._table is None:
            return None
        late = pc.and_(self._table["answered"], pc.greater_equal(self._table["timestamp"], time))
        records = pc.sum(late).as_py() or 0
        return self._read(newest(self._store, self._log, records), columns)

    def _read(self, rows: Sequence[PartRows], columns: Sequence[str]) -> Any:
        import pyarrow as pa

        tables = [read(self._store, one, columns) for one in rows]
        return pa.concat_tables(tables) if tables else None

    def of(self, releases: Collection[str] | None, most: int) -> list[Asked]:
        """The newest ``most`` requests that these releases were asked; None stands for all."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._table is None:
            return []
        table = self._table
        if releases is not None:
            chosen = pa.array(sorted(releases), pa.string())
            table = table.filter(pc.is_in(table["release"], chosen))
        rows = table.slice(max(0, len(table) - most)).to_pylist()
        return [Asked(**row | {"slices": dict(row["slices"] or ())}) for row in rows]

    def answered(self, since: datetime | None) -> list[dict[str, Any]]:
        """Id, release and time of every request that got an answer, in order of time."""
        import pyarrow.compute as pc

        if self._table is None:
            return []
        table = self._table.filter(self._table["answered"])
        if since is not None:
            table = table.filter(pc.greater_equal(table["timestamp"], since))
        rows: list[dict[str, Any]] = table.select(["id", "release", "timestamp"]).to_pylist()
        return rows

    def texts(self, ids: Collection[str], column: str) -> dict[str, str]:
        """``output`` or ``messages`` of these requests, by id, however old they are."""
        import pyarrow as pa
        import pyarrow.compute as pc

        chosen = pa.array(sorted(ids), pa.string())
        found: dict[str, str] = {}
        for rows in newest(self._store, self._log, EVERY) if ids else ():
            table = read(self._store, rows, ["id", column])
            kept = table.filter(pc.is_in(table["id"], chosen))
            found.update(zip(kept["id"].to_pylist(), kept[column].to_pylist(), strict=True))
        return found


def choose_windows(ours: Sequence[Asked], before: Sequence[Asked], spec: QualitySpec) -> Windows:
    """Split what the release in force was asked; ``before`` is what the release before it was.

    The baseline is the requests before the current window; where those are too few, the newest of
    the release before.
    """
    current, earlier = ours[-spec.window :], ours[: -spec.window][-spec.baseline :]
    ends = range(len(ours), 0, -spec.window)
    history = [ours[max(0, end - spec.window) : end] for end in ends][: spec.history]
    against = "the requests before, of the same release"
    if len(earlier) < spec.min_requests and len(before) >= spec.min_requests:
        earlier, against = before[-spec.baseline :], "the newest requests of the release before"
    return Windows(current, earlier, against, history[::-1])


def _that_count(table: Any) -> Any:
    import pyarrow.compute as pc

    failed = pc.or_(pc.greater_equal(table["status"], FAILED), pc.equal(table["status"], LEFT))
    seen = pc.and_(pc.not_equal(table["arm"], SHADOW), pc.or_(table["answered"], failed))
    return table.filter(seen).drop_columns(["arm"])
