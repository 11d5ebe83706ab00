"""What judging a dataset as a whole takes of each row, in an SQLite file instead of memory.

A row that passed the suite ``rows`` becomes one line of the table ``rows``: hashes of its id,
text and answer, its split, labels and slices. Duplicates, contradictions and leaks are then
found by SQLite's sorter, which spills to disk, and Great Expectations reads the same table.
Hashes are the first 8 bytes of BLAKE2b: among a million rows, two different texts are taken
for the same with a probability of 3e-8.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mlops_assets.dataset.expectations import WholeRule
from mlops_assets.dataset.row_frame import Answer, Labels, label_column, prompt_text
from mlops_assets.dataset.sources import Candidate
from mlops_assets.near_duplicates import normalised

CACHE_KIB = 32_768  # pages that SQLite keeps in memory, and the size of a run it sorts there

_FIXED = (
    "line INTEGER",
    "file TEXT",
    "split TEXT",
    "id_key INTEGER",
    "folded_key INTEGER",  # the prompt, ignoring case
    "text_key INTEGER",  # the prompt, ignoring case and spacing
    "place_key INTEGER",  # what may stand once: whether test, and prompt; a free answer too
    "answer_key INTEGER",
    "slices TEXT",
    "personal TEXT",
)
_FOUND = ("earlier_ids", "earlier_texts", "in_train", "in_train_respaced", "contradicted")


@dataclass(frozen=True)
class QuarantinedLine:
    """A line that was set aside."""

    line: int
    file: str
    reason: str
    excerpt: str
    """Its beginning, personal data taken out."""


@dataclass(frozen=True)
class PersonalLine:
    """A line that holds personal data, without the values."""

    line: int
    file: str
    entities: list[str]


class Decision(NamedTuple):
    """What becomes of a row that passed the suite ``rows``."""

    row: int
    line: int
    file: str
    reason: str | None
    """Why it is set aside after all, or None."""


class RowIndex:
    """One SQLite file; ``close`` it before it is deleted."""

    def __init__(self, path: Path, labels: Labels) -> None:
        self.path = path
        self._labels = labels
        self._db = sqlite3.connect(path)
        # The file lives as long as one build: there is nothing to recover.
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
            self._db.execute(f"PRAGMA {setting}")
        found = [f"{name} INTEGER NOT NULL DEFAULT 0" for name in _FOUND]
        texts = [f"{_quoted(label_column(name))} TEXT" for name in labels]
        columns = ", ".join([*_FIXED, *texts, *found, "reason TEXT"])
        self._db.execute(f"CREATE TABLE rows (row INTEGER PRIMARY KEY, {columns})")
        self._db.execute(
            "CREATE TABLE quarantine (row INTEGER PRIMARY KEY, line INTEGER, file TEXT,"
            " reason TEXT, excerpt TEXT)"
        )
        names = ["row", *(column.rpartition(" ")[0] for column in (*_FIXED, *texts))]
        values = ", ".join("?" * len(names))
        self._insert = f"INSERT INTO rows ({', '.join(names)}) VALUES ({values})"  # noqa: S608

    def add(self, rows: Iterable[tuple[int, Candidate, Answer | None]]) -> None:
        """Take in rows that passed the suite ``rows``."""
        self._db.executemany(self._insert, (self._record(*row) for row in rows))

    def set_aside(self, lines: Iterable[tuple[int, QuarantinedLine]]) -> None:
        """Take in quarantined lines, by row number."""
        self._db.executemany(
            "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?)",
            ((row, item.line, item.file, item.reason, item.excerpt) for row, item in lines),
        )

    def judge(self, rules: Sequence[WholeRule]) -> None:
        """Find contradictions, then by each rule duplicates and leaks, and give those a reason."""
        self._db.execute(
            "UPDATE rows SET contradicted = 1 WHERE text_key IN (SELECT text_key FROM rows"
            " GROUP BY text_key HAVING MIN(answer_key) <> MAX(answer_key))"
        )
        find = {
            "earlier_ids": partial(self._count_earlier, "id_key"),
            "earlier_texts": partial(self._count_earlier, "place_key"),
            "in_train": partial(self._mark_leaks, "folded_key"),
            "in_train_respaced": partial(self._mark_leaks, "text_key"),
        }
        for rule in rules:  # a row that is set aside counts for no later rule
            find[rule.column](rule.column)
            self._db.execute(
                f"UPDATE rows SET reason = ? WHERE reason IS NULL AND {rule.column} <> ?",  # noqa: S608
                (rule.reason, rule.good),
            )
        self._fill_slices()
        self._db.commit()

    @property
    def splits_pinned(self) -> bool:
        """Whether the source fixes the split of any row."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM rows WHERE split IS NOT NULL)"))

    @property
    def rows(self) -> int:
        """Rows that passed the suite ``rows``."""
        return int(self._one("SELECT COUNT(*) FROM rows"))

    @property
    def contradicted(self) -> int:
        """Rows whose text stands elsewhere with another answer."""
        return int(self._one("SELECT COUNT(*) FROM rows WHERE contradicted = 1"))

    def decisions(self) -> Iterator[Decision]:
        """What becomes of each row that passed the suite ``rows``, in their order."""
        found = self._db.execute("SELECT row, line, file, reason FROM rows ORDER BY row")
        return (Decision(*record) for record in found)

    def quarantined(self) -> Iterator[QuarantinedLine]:
        """The quarantined lines in the order of the source."""
        found = self._db.execute("SELECT line, file, reason, excerpt FROM quarantine ORDER BY row")
        return (QuarantinedLine(*record) for record in found)

    def by_reason(self) -> dict[str, int]:
        """Quarantined lines by reason."""
        query = "SELECT reason, COUNT(*) FROM quarantine GROUP BY reason ORDER BY reason"
        return dict(self._db.execute(query))

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """The labels that occur in this field, sorted."""
        column = _quoted(label_column(name))
        found = self._db.execute(f"SELECT DISTINCT {column} FROM rows")  # noqa: S608
        return tuple(sorted(str(value) for (value,) in found))

    def label_counts(self, labels: Labels) -> dict[str, dict[str, int]]:
        """How often each label occurs in the rows that stay, by field; absent ones count 0."""
        counts = {}
        for name, values in labels.items():
            column = _quoted(label_column(name))
            found = dict(
                self._db.execute(
                    f"SELECT {column}, COUNT(*) FROM rows WHERE reason IS NULL GROUP BY 1"  # noqa: S608
                )
            )
            counts[name] = {value: found.get(value, 0) for value in values}
        return counts

    def slice_counts(self) -> list[tuple[str, str, int]]:
        """Dimension, value and how many rows stay of it."""
        query = "SELECT dimension, value, rows FROM slices ORDER BY dimension, value"
        return list(self._db.execute(query))

    def personal_rows(self, entities: Collection[str]) -> dict[str, int]:
        """Rows that stay and hold personal data of these kinds, by kind."""
        counts: Counter[str] = Counter()
        for line in self.personal_lines(entities):
            counts.update(line.entities)
        return dict(sorted(counts.items()))

    def personal_lines(self, entities: Collection[str]) -> Iterator[PersonalLine]:
        """The lines of the rows that stay and hold personal data of these kinds."""
        query = (
            "SELECT line, file, personal FROM rows WHERE reason IS NULL AND personal <> '[]'"
            " ORDER BY row"
        )
        for line, file, personal in self._db.execute(query):
            if found := [kind for kind in orjson.loads(personal) if kind in entities]:
                yield PersonalLine(line, file, found)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _record(self, row: int, candidate: Candidate, answer: Answer | None) -> tuple[Any, ...]:
        text = prompt_text(candidate)
        respaced = normalised(text)
        content = (candidate.messages or ({"content": ""},))[-1]["content"]
        labels = [(answer or {}).get(name) for name in self._labels]
        said = orjson.dumps(labels) if labels else orjson.dumps([content, candidate.rejected])
        held_out = candidate.split == "test"  # rows of no split and rows of train may repeat
        place = f"{held_out}\0{respaced}" + ("" if labels else f"\0{said.decode()}")
        return (
            row,
            candidate.line,
            candidate.file,
            candidate.split,
            _key(str(candidate.id)),
            _key(text.casefold().strip()),
            _key(respaced),
            _key(place),
            _key(said),
            orjson.dumps(candidate.slices).decode(),
            orjson.dumps(sorted(candidate.redactions)).decode(),
            *labels,
        )

    def _count_earlier(self, key: str, column: str) -> None:
        """Set ``column`` to how many earlier rows that stay have the same ``key``."""
        self._db.execute(
            f"UPDATE rows SET {column} = place - 1 FROM (SELECT row AS other, ROW_NUMBER() OVER"  # noqa: S608
            f" (PARTITION BY {key} ORDER BY row) AS place FROM rows WHERE reason IS NULL)"
            " WHERE row = other AND place > 1"
        )

    def _mark_leaks(self, key: str, column: str) -> None:
        """Set ``column`` to 1 for test rows whose ``key`` stands in train; of rows that stay."""
        self._db.execute(
            f"UPDATE rows SET {column} = 1 WHERE split = 'test' AND reason IS NULL"  # noqa: S608
            f" AND {key} IN (SELECT {key} FROM rows WHERE split = 'train' AND reason IS NULL)"
        )

    def _fill_slices(self) -> None:
        """The table that the suite ``slices`` judges: what stays of each value."""
        counts: Counter[tuple[str, str]] = Counter()
        query = "SELECT slices, SUM(reason IS NULL) FROM rows GROUP BY slices"
        for values, rows in self._db.execute(query):
            for item in orjson.loads(values).items():
                counts[item] += rows
        self._db.execute("CREATE TABLE slices (dimension TEXT, value TEXT, rows INTEGER)")
        self._db.executemany(
            "INSERT INTO slices VALUES (?, ?, ?)",
            ((*item, rows) for item, rows in sorted(counts.items())),
        )

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]


def _key(text: str | bytes) -> int:
    data = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
