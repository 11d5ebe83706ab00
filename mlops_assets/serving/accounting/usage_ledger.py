"""The budget ledger ``usage.db``: what every key, user, feature and prompt used on every day.

It is a projection of the request log. Totals change only together with the position up to which
the log was counted, in one transaction; so whenever its process is killed, the totals are the sum
over the log up to that position, and the next ``catch_up`` counts the rest once. A ledger that was
lost is made again from the log.

Nothing here belongs on the path of a request: it reads files and waits for the disk.
"""

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.serving.accounting.counted_log import counted
from mlops_assets.serving.accounting.usage import Name, Totals, Usage, merge
from mlops_assets.serving.records.log_tail import BEGINNING, Position
from mlops_assets.serving.serving_home import ServingHome

logger = logging.getLogger(__name__)

TABLES = """
CREATE TABLE totals (
    day TEXT, scope TEXT, name TEXT,
    requests INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    nanos INTEGER NOT NULL, PRIMARY KEY (day, scope, name)
) WITHOUT ROWID;
CREATE TABLE position (
    id INTEGER PRIMARY KEY CHECK (id = 0), segment TEXT NOT NULL, offset INTEGER NOT NULL
);
CREATE TABLE alerts (
    day TEXT, scope TEXT, name TEXT, unit TEXT, percent INTEGER, told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, scope, name, unit, percent)
) WITHOUT ROWID;
"""
ADD = """
INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    requests = requests + excluded.requests, tokens_in = tokens_in + excluded.tokens_in,
    tokens_out = tokens_out + excluded.tokens_out, nanos = nanos + excluded.nanos
"""


class Alert(NamedTuple):
    """A threshold that somebody's use has reached."""

    of: Name
    unit: str
    percent: int


@dataclass(frozen=True)
class UsageLedger:
    """One file, made on first use, readable by its owner alone."""

    path: Path
    log: Path
    """Directory of the request log."""

    def catch_up(self) -> Totals:
        """Count what the log holds behind the position; returns what was added.

        A block of the log is one transaction. A log that is shorter than what was counted of it
        lost its end in a power cut, and is counted anew. Raises LineageError when the file cannot
        be used.
        """
        added: Totals = {}
        with self._open() as database:
            position = _position(database)
            if not self._holds(position):
                logger.warning("%s lost its end: counting all of it again", self.log)
                with database:
                    database.execute("DELETE FROM totals")
                    database.execute("DELETE FROM position")
                position = BEGINNING
            for batch, behind in counted(self.log, position):
                with database:
                    database.executemany(ADD, [(*name, *_columns(batch[name])) for name in batch])
                    database.execute(
                        "INSERT OR REPLACE INTO position VALUES (0, ?, ?)",
                        (behind.segment, behind.offset),
                    )
                merge(added, batch)
        return added

    def totals(self, day: str | None = None) -> Totals:
        """The totals of one day, or of all, as far as they were counted."""
        return self.snapshot(day)[0]

    def snapshot(self, day: str | None = None) -> tuple[Totals, Position]:
        """Totals, and the position that they belong to."""
        with self._open() as database:
            database.execute("BEGIN")  # both as of one moment, while another process counts
            return _totals(database, day), _position(database)

    def of(self, names: Iterable[Name]) -> Totals:
        """The totals of these names."""
        query = (
            "SELECT requests, tokens_in, tokens_out, nanos FROM totals"
            " WHERE day = ? AND scope = ? AND name = ?"
        )
        with self._open() as database:
            found = ((name, database.execute(query, name).fetchone()) for name in names)
            return {name: Usage(*row) for name, row in found if row is not None}

    def note(self, alerts: Iterable[Alert]) -> None:
        """Keep alerts that nobody has been told yet; those that are known already stay as known."""
        rows = [(*alert.of, alert.unit, alert.percent) for alert in alerts]
        with self._open() as database, database:
            database.executemany("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?, ?, ?, 0)", rows)

    def untold(self) -> list[Alert]:
        """Alerts that are still to be sent, of each unit and name only the highest."""
        query = (
            "SELECT day, scope, name, unit, MAX(percent) FROM alerts WHERE told = 0"
            " GROUP BY day, scope, name, unit"
        )
        with self._open() as database:
            return [Alert(Name(*row[:3]), row[3], row[4]) for row in database.execute(query)]

    def told(self, alert: Alert) -> None:
        """Note that people know of it, and so of every lower threshold."""
        statement = (
            "UPDATE alerts SET told = 1"
            " WHERE day = ? AND scope = ? AND name = ? AND unit = ? AND percent <= ?"
        )
        with self._open() as database, database:
            database.execute(statement, (*alert.of, alert.unit, alert.percent))

    def _holds(self, position: Position) -> bool:
        """Whether the log reaches up to there. Segments that were taken away are no loss."""
        path = self.log / position.segment
        return not path.is_file() or path.stat().st_size >= position.offset

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self.path.exists():
                self._make()
            with closing(sqlite3.connect(self.path, timeout=10)) as database:
                yield database
        except (sqlite3.Error, OSError) as error:
            raise LineageError(
                f"The budget ledger {self.path} cannot be used ({error}).",
                "Check that its disk has room; a damaged file may be deleted, it is made again"
                " from the request log.",
            ) from error

    def _make(self) -> None:
        """Complete or not at all: whoever reads never meets a file without its tables."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in ("-wal", "-shm"):  # of a file that was deleted: SQLite would replay it
            self.path.with_name(self.path.name + leftover).unlink(missing_ok=True)
        with atomic_write(self.path) as temporary:
            temporary.touch(mode=0o600)
            with closing(sqlite3.connect(temporary)) as database:
                # Readers then wait for nobody; SQLite gives the file beside it the same mode.
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(TABLES)


def usage_ledger(files: ServingHome) -> UsageLedger:
    """The ledger of a home."""
    return UsageLedger(files.root / "usage.db", files.requests)


def _columns(usage: Usage) -> tuple[int, int, int, int]:
    return usage.requests, usage.tokens_in, usage.tokens_out, usage.nanos


def _position(database: sqlite3.Connection) -> Position:
    row = database.execute("SELECT segment, offset FROM position").fetchone()
    return Position(*row) if row else BEGINNING


def _totals(database: sqlite3.Connection, day: str | None) -> Totals:
    query = "SELECT day, scope, name, requests, tokens_in, tokens_out, nanos FROM totals"
    rows: Iterable[Any] = (
        database.execute(f"{query} WHERE day = ?", (day,)) if day else database.execute(query)
    )
    return {Name(*row[:3]): Usage(*row[3:]) for row in rows}
