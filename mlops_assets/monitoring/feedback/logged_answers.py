"""What the prediction log holds of the requests that people spoke of."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.feedback.lessons import Lesson
from mlops_assets.monitoring.log import window
from mlops_assets.monitoring_refs import PredictionLogRef

if TYPE_CHECKING:
    import pyarrow as pa

EVERY = 2**62  # records: the whole log, however old the request
_COLUMNS = ("id", "timestamp", "answered", "user", "release", "messages", "output", "slices")


def with_requests(
    store: ArtifactStore, log: PredictionLogRef, lessons: Sequence[Lesson]
) -> list[Lesson]:
    """The lessons with what the log holds of their requests; those of others as they are."""
    wanted = {lesson.request for lesson in lessons}
    logged = {
        row["id"]: row
        for table in _matching(store, log, "id", wanted, _COLUMNS)
        for row in table.to_pylist()
        if row["answered"]
    }
    answers = _answers(store, log, {row["messages"] for row in logged.values()})
    return [
        _joined(lesson, row, answers[row["messages"]])
        if (row := logged.get(lesson.request))
        else lesson
        for lesson in lessons
    ]


def _answers(
    store: ArtifactStore, log: PredictionLogRef, messages: Collection[str]
) -> dict[str, list[str]]:
    """All that was ever answered to each of these messages, each answer once."""
    found: dict[str, dict[str, None]] = {key: {} for key in messages}
    for table in _matching(store, log, "messages", messages, ("messages", "output")):
        for row in table.to_pylist():
            found[row["messages"]][row["output"]] = None
    return {key: list(answers) for key, answers in found.items()}


def recent_requests(store: ArtifactStore, log: PredictionLogRef, columns: Collection[str]) -> Any:
    """The rows of the log's own window, as one table; None of an empty log."""
    import pyarrow as pa

    tables = [window.read(store, rows, list(columns)) for rows in window.newest(store, log)]
    return pa.concat_tables(tables) if tables else None


def _matching(
    store: ArtifactStore,
    log: PredictionLogRef,
    column: str,
    values: Collection[str],
    columns: Collection[str],
) -> Iterator["pa.Table"]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not values:
        return
    wanted = pa.array(sorted(values), pa.string())
    for rows in window.newest(store, log, EVERY):
        table = window.read(store, rows, list(columns))
        yield table.filter(pc.is_in(table[column], value_set=wanted))


def _joined(lesson: Lesson, row: Mapping[str, Any], answers: Sequence[str]) -> Lesson:
    others = (answer for answer in answers if answer != row["output"])
    return replace(
        lesson,
        user=row["user"],
        release=row["release"],
        asked=row["timestamp"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        messages=tuple(json.loads(row["messages"])),
        slices=tuple(sorted(row["slices"] or ())),
        answers=(row["output"], *others),
    )
