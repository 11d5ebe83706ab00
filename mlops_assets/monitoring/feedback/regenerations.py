"""Answers that their user asked for again: the same question, within minutes.

Nobody says so by a vote; the log shows it. A request that failed and was sent again is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("id", "timestamp", "answered", "tenant", "user", "user_named", "release", "messages")
"""Of the log's parts, that are read."""


@dataclass(frozen=True)
class Regeneration:
    """An answer, and the one that was asked for in its place."""

    first: str
    """Id of the request whose answer was not kept."""
    second: str
    user: str
    seconds: float
    """Between the two."""
    tenant: str
    release: str
    """Digest of the bundle whose answer was not kept."""
    time: str
    """When it was asked for again, ISO 8601 in UTC."""


def find_regenerations(requests: "pa.Table", minutes: float) -> list[Regeneration]:
    """The regenerated answers among log rows with ``COLUMNS``, by user and then by time.

    Requests of no known user are nobody's second thought and count for nothing: behind one key
    many people may ask the same.
    """
    import pyarrow.compute as pc

    # Older parts of the log do not say whether a user was named.
    named = pc.coalesce(pc.field("user_named"), pc.scalar(True))
    answered = requests.select(list(COLUMNS)).filter(
        pc.field("answered") & (pc.field("user") != "") & named
    )
    order = [(name, "ascending") for name in ("user", "messages", "timestamp", "id")]
    rows = answered.sort_by(order).combine_chunks()
    if rows.num_rows < 2:
        return []
    first, second = rows.slice(0, rows.num_rows - 1), rows.slice(1)
    gap = pc.subtract(second["timestamp"], first["timestamp"])
    soon = pc.less_equal(gap, timedelta(minutes=minutes))
    same = (pc.equal(first[name], second[name]) for name in ("user", "messages"))
    for each in same:
        soon = pc.and_(soon, each)
    return [
        _regeneration(before, after)
        for before, after in zip(
            first.drop_columns("messages").filter(soon).to_pylist(),
            second.select(["id", "timestamp"]).filter(soon).to_pylist(),
            strict=True,
        )
    ]


def _regeneration(before: Mapping[str, Any], after: Mapping[str, Any]) -> Regeneration:
    gap = after["timestamp"] - before["timestamp"]
    time = after["timestamp"].astimezone(UTC).isoformat(timespec="milliseconds")
    who = before["user"], gap.total_seconds(), before["tenant"], before["release"]
    return Regeneration(before["id"], after["id"], *who, time)
