"""Prediction-level records: what every system answered to every item, and how it scored.

One Parquet file for a report. The gate pairs two systems' scores by item, pages show what got
better and what got worse, and two runs can be compared item by item.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mlops_assets.artifacts import digest_json
from mlops_assets.refs import Row

RECORDS = "records.parquet"
AT_ONCE = 20_000  # records; their plain form takes several times their own memory
TEST = "test"
"""The name under which the test split stands beside the suites."""


@dataclass(frozen=True)
class Record:
    """One system's answer to one item."""

    suite: str
    """``test`` for the test split, else the suite's name."""
    item: str
    """The item's id, unique within its suite."""
    input_hash: str
    """SHA-256 of the messages and tools asked, as canonical JSON."""
    system: str
    """One of ``scoring.SYSTEMS``."""
    output: str
    reference: str = ""
    finished: bool | None = None
    """Whether the model ended the answer itself; None for systems that generate nothing."""
    tokens: int | None = None
    """Tokens generated; None for systems that generate nothing."""
    slices: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """By metric, the leading one first; higher is better, mostly 0 to 1. None where there is no
    score: no verdict."""
    input: str = ""
    """The text of the last message asked, for people who look at examples."""


class Answer(NamedTuple):
    """What a system answered; the last two are None for systems that generate nothing."""

    text: str
    finished: bool | None = None
    tokens: int | None = None


def input_hash(row: Row) -> str:
    """SHA-256 of what is asked: the messages before the answer, and the tools."""
    return digest_json([[dict(message) for message in row.prompt], list(row.tools)])


def make_records(
    suite: str,
    rows: Sequence[Row],
    answers: Mapping[str, Sequence[Answer]],
    scores: Mapping[str, Sequence[Mapping[str, float | None]]],
) -> list[Record]:
    """A record for each row and system, row by row; ``answers`` and ``scores`` are by system."""
    hashes = [input_hash(row) for row in rows]
    return [
        Record(
            suite,
            row.id,
            hashes[i],
            system,
            found[i].text,
            row.answer,
            found[i].finished,
            found[i].tokens,
            row.slices,
            scores[system][i],
            str(row.prompt[-1]["content"]) if row.prompt else "",
        )
        for i, row in enumerate(rows)
        for system, found in answers.items()
    ]


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write the records, in their order, as Parquet; the maps are columns of JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, left = _schema(), iter(records)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while rows := [_flat(record) for record in islice(left, AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def read_records(path: Path, system: str | None = None) -> list[Record]:
    """The records, or those of one ``system``, in their order.

    Raises OSError or ValueError when the file is no such thing.
    """
    import pyarrow.parquet as pq

    chosen = [("system", "==", system)] if system else None
    table = pq.read_table(path, schema=_schema(), filters=chosen)
    batches = table.to_batches(max_chunksize=AT_ONCE)
    return [_deep(row) for batch in batches for row in batch.to_pylist()]


def _schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            *((name, text) for name in ("suite", "item", "input_hash", "system")),
            *((name, text) for name in ("output", "reference")),
            ("finished", pa.bool_()),
            ("tokens", pa.int32()),
            *((name, text) for name in ("slices", "scores", "input")),
        ]
    )


def _flat(record: Record) -> dict[str, Any]:
    maps = {"slices": dict(record.slices), "scores": dict(record.scores)}
    return vars(record) | {
        name: json.dumps(value, allow_nan=False, ensure_ascii=False) for name, value in maps.items()
    }


def _deep(row: Mapping[str, Any]) -> Record:
    maps = {name: json.loads(row[name]) for name in ("slices", "scores")}
    return Record(**(dict(row) | maps))
