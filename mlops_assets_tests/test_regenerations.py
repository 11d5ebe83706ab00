"""The same question of the same user within minutes: the first answer was not kept."""

from datetime import datetime
from typing import Any

import pytest

from mlops_assets.monitoring.feedback.regenerations import COLUMNS, Regeneration, find_regenerations

KEY = "shop"
"""What the log holds for a caller that names no user."""


def find(*rows: tuple[str, str, str, bool], minutes: float = 5) -> list[Any]:
    """Of requests given as time, user, text and whether they were answered; ids are places."""
    import pyarrow as pa

    moments = [datetime.fromisoformat(f"2026-03-01T{time}Z") for time, *_ in rows]
    times = pa.array(moments, pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {
        "id": pa.array([str(place) for place in range(len(rows))], pa.string()),
        "timestamp": times,
        "tenant": pa.array(["shop"] * len(rows), pa.string()),
        "release": pa.array(["f"] * len(rows), pa.string()),
        "answered": pa.array([row[3] for row in rows], pa.bool_()),
        "user": pa.array([row[1] for row in rows], pa.string()),
        "user_named": pa.array([row[1] != KEY if row[1] else None for row in rows], pa.bool_()),
        "messages": pa.array([row[2] for row in rows], pa.string()),
    }
    return find_regenerations(pa.table({name: columns[name] for name in COLUMNS}), minutes)


def test_who_asks_again_within_minutes_did_not_keep_the_first_answer() -> None:
    found = find(
        ("10:00:00", "kim", "lamp", True),
        ("10:01:00", "lou", "lamp", True),
        ("10:01:30", "kim", "sofa", True),
        ("10:04:30", "kim", "lamp", True),
        ("10:05:00", "kim", "lamp", True),
    )
    assert found == [
        Regeneration("0", "3", "kim", 270.0, "shop", "f", "2026-03-01T10:04:30.000+00:00"),
        Regeneration("3", "4", "kim", 30.0, "shop", "f", "2026-03-01T10:05:00.000+00:00"),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("10:00:00", "kim", "lamp", True), ("10:05:01", "kim", "lamp", True)),  # later
        (("10:00:00", "kim", "lamp", False), ("10:01:00", "kim", "lamp", True)),  # had failed
        (("10:00:00", "", "lamp", True), ("10:01:00", "", "lamp", True)),  # nobody knows who
        (("10:00:00", KEY, "lamp", True), ("10:01:00", KEY, "lamp", True)),  # many behind one key
        (("10:00:00", "kim", "lamp", True), ("10:01:00", "lou", "lamp", True)),  # another user
        (("10:00:00", "kim", "lamp", True), ("10:01:00", "kim", "lamps", True)),  # other words
    ],
)
def test_what_is_no_regeneration(first: Any, second: Any) -> None:
    assert find(first, second) == []
    assert find(first) == find() == []
