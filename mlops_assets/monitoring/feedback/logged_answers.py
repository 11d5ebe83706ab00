"""What the prediction log holds of the requests that people spoke of."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.feedback.echoes import may_repeat
from mlops_assets.monitoring.feedback.lessons import Lesson
from mlops_assets.monitoring.log import window
from mlops_assets.monitoring_refs import PredictionLogRef

if TYPE_CHECKING:
    import pyarrow as pa

EVERY = 2**62  # records: the whole log, however old the request
_LOOKS = r"(?:\\[bfnrt]|\\u00[01][0-9a-f]|[\s\p{P}\p{Z}\p{C}])+"
"""What a question in JSON may have more or less of, and be the same: spaces, line ends, letters
that nobody sees, punctuation."""
_COLUMNS = ("id", "timestamp", "answered", "user", "release", "messages", "output", "slices")


def with_requests(
    store: ArtifactStore, log: PredictionLogRef, lessons: Sequence[Lesson]
) -> list[Lesson]:
    """The lessons with what the log holds of their requests; those of others as they are."""
    import pyarrow as pa

    wanted = pa.array(sorted({lesson.request for lesson in lessons}), pa.string())
    logged = {
        row["id"]: row
        for table in _matching(store, log, _COLUMNS, lambda table: table["id"], wanted)
        for row in table.to_pylist()
        if row["answered"]
    }
    answers = _answers(store, log, sorted({row["messages"] for row in logged.values()}))
    return [
        _joined(lesson, row, answers[row["messages"]])
        if (row := logged.get(lesson.request))
        else lesson
        for lesson in lessons
    ]


def _answers(
    store: ArtifactStore, log: PredictionLogRef, messages: Sequence[str]
) -> dict[str, list[str]]:
    """All that was ever answered to each of these messages, however written, each answer once."""
    import pyarrow as pa

    keys = _questions(pa.array(messages, pa.string()))
    found: dict[str, dict[str, None]] = {key: {} for key in keys.to_pylist()}
    columns = ("messages", "output")
    asked = _matching(store, log, columns, lambda table: _questions(table["messages"]), keys)
    for table in asked:
        said = zip(
            _questions(table["messages"]).to_pylist(), table["output"].to_pylist(), strict=True
        )
        for key, output in said:
            found[key][output] = None
    return {one: list(found[key]) for one, key in zip(messages, keys.to_pylist(), strict=True)}


def _questions(messages: Any) -> Any:
    """By which messages are found that ask the same, whatever their case and looks."""
    import pyarrow.compute as pc

    folded = pc.utf8_lower(pc.utf8_normalize(messages, form="NFKC"))
    return pc.replace_substring_regex(folded, pattern=_LOOKS, replacement="")


def recent_requests(store: ArtifactStore, log: PredictionLogRef, columns: Collection[str]) -> Any:
    """The rows of the log's own window, as one table; None of an empty log."""
    import pyarrow as pa

    tables = [window.read(store, rows, list(columns)) for rows in window.newest(store, log)]
    return pa.concat_tables(tables) if tables else None


def _matching(
    store: ArtifactStore,
    log: PredictionLogRef,
    columns: Collection[str],
    key: Callable[["pa.Table"], Any],
    wanted: "pa.Array",
) -> Iterator["pa.Table"]:
    """The rows of the whole log whose ``key`` is one of ``wanted``."""
    import pyarrow.compute as pc

    for rows in window.newest(store, log, EVERY) if len(wanted) else ():
        table = window.read(store, rows, list(columns))
        yield table.filter(pc.is_in(key(table), value_set=wanted))


def _joined(lesson: Lesson, row: Mapping[str, Any], answers: Sequence[str]) -> Lesson:
    others = (
        answer
        for answer in answers
        if answer != row["output"] and may_repeat(lesson.answer, answer)
    )
    return replace(
        lesson,
        user=row["user"],
        release=row["release"],
        asked=row["timestamp"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        messages=tuple(json.loads(row["messages"])),
        slices=tuple(sorted(row["slices"] or ())),
        answers=(row["output"], *others),
    )
