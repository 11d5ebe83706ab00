"""What the gateway ought to serve: the release on the ledger, or the last one that could be read.

A thread looks at the ledger every second; one cheap query says whether there is a new row. While
it cannot be read, or has lost rows that were read before, the last known good state stays in force
and its age is told. A copy of the ledger's rows is kept beside the gateway's files, so a gateway
that is started while the ledger is down serves what was in force. The copy needs no secret of
ours: the rows carry the approvers' signatures, and whoever starts an engine verifies them from the
copy exactly as from the ledger (``release_check``). A copy that was cut back or changed in between
breaks the chain and is not used.

The gateway may know better than the ledger for a moment: a rollback takes the candidate off at
once (``withdraw``), whether or not its row can be written yet. That is kept in the copy as well.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.home import Home
from mlops_assets.ledger import GENESIS, ROLLED_BACK, LedgerEntry, read_rows
from mlops_assets.release_state import ReleaseState, read_release

logger = logging.getLogger(__name__)

COPY = "last_state.json"
POLL_S = 1.0
STOP_S = 5.0
NOT_READ = "The decision ledger was not read yet."


@dataclass(frozen=True)
class Withdrawal:
    """A rollback that was decided here: why, and the numbers that decided."""

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """The ledger at one moment."""

    entries: tuple[LedgerEntry, ...] = ()
    release: ReleaseState = field(default_factory=ReleaseState)


class DesiredState:
    """The release of one model, read again and again. Its reading side may be any thread."""

    def __init__(self, home: Home, model: str, poll_s: float = POLL_S) -> None:
        self.model = model
        self.withdrawn: dict[int, Withdrawal] = {}
        """By the entry of the promotion that is no longer served here."""
        self.problem: str | None = None
        """Why the ledger is not heeded now; None while it is."""
        self._home, self._poll_s = home, poll_s
        self._known = Known()
        self._rows: list[dict[str, Any]] = []
        self._tip: tuple[int, str | None] | None = None
        self._read_at: float | None = None
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.on_change: Callable[[], object] = lambda: None
        """Called in the reading thread whenever the ledger says something else."""

    @property
    def state(self) -> ReleaseState:
        """What is to be served now: what the ledger says, less what was withdrawn here."""
        found = self._known.release
        if found.candidate is None or found.candidate.entry not in self.withdrawn:
            return found
        return replace(found, candidate=None, percent=0, stage=ROLLED_BACK)

    @property
    def known(self) -> Known:
        """The ledger as it was last read: its rows, and what they say."""
        return self._known

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """The ledger's rows as they were last read, the whole chain."""
        return self._known.entries

    @property
    def age_s(self) -> float | None:
        """Seconds since the ledger was last read; None if it never was."""
        return None if self._read_at is None else max(0.0, time.time() - self._read_at)

    def start(self) -> None:
        """Read the copy and the ledger once, then the ledger again and again in a thread."""
        self._load_copy()
        self.refresh()
        self._thread = threading.Thread(target=self._poll, name="ledger-poll", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that still waits for a database is left behind."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def refresh(self) -> bool:
        """Read the ledger now; returns whether it could be. Raises nothing."""
        before = self._known.release
        with self._reading:
            try:
                self._read()
            except LineageError as error:
                if self.problem in (None, NOT_READ):
                    logger.warning("serving the last known good release: %s", error)
                self.problem = error.problem
                return False
            except Exception as error:  # a bug here must not end the thread: nobody would notice
                logger.exception("serving the last known good release")
                self.problem = f"The decision ledger cannot be understood ({type(error).__name__})."
                return False
            if self.problem not in (None, NOT_READ):
                logger.info("the ledger is read again")
            self.problem, self._read_at = None, time.time()
        if self._known.release != before:
            self.on_change()
        return True

    def withdraw(self, promotion: LedgerEntry, why: Withdrawal) -> None:
        """Serve this promotion no longer, whatever the ledger says until its row is written.

        Waits for nothing; ``save`` makes it outlive this process.
        """
        self.withdrawn = {**self.withdrawn, promotion.entry: why}

    def _poll(self) -> None:
        while not self._ended.wait(self._poll_s):
            self.refresh()

    def _read(self) -> None:
        ledger = self._home.ledger
        if self._read_at is not None and self.problem is None and ledger.tip() == self._tip:
            self._touch_copy()
            return
        rows = ledger.rows()
        self._heed(rows)
        self.save()

    def _heed(self, rows: list[dict[str, Any]]) -> None:
        """Take these rows as the ledger. Raises LineageError when they are not the old ones and
        perhaps more."""
        entries = read_rows(rows)
        known = self.entries[-1].computed if self.entries else None
        if known is not None and known not in {entry.computed for entry in entries}:
            raise LineageError(
                "The decision ledger has lost rows that were read before, or they were changed.",
                "Bring it back from a backup; if it is right as it is, stop the gateway, delete"
                f" {COPY} and start it again.",
            )
        release = read_release(entries, self.model)
        self._rows, self._known = rows, Known(tuple(entries), release)
        self._tip = (entries[-1].entry, entries[-1].hash) if entries else None
        waits = release.candidate is not None and release.candidate.entry in self.withdrawn
        if self.withdrawn and not waits:
            self.withdrawn = {}  # what was decided here stands on the ledger, or is overtaken

    @property
    def _copy(self) -> Path:
        return self._home.root / "serving" / COPY

    def save(self) -> None:
        """Keep what was read and decided. A full disk costs the copy, not the service."""
        withdrawn = {str(entry): vars(why) for entry, why in self.withdrawn.items()}
        content = {"model": self.model, "rows": self._rows, "withdrawn": withdrawn}
        try:
            with self._writing, atomic_write(self._copy) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            logger.warning("the copy %s cannot be written: %s", self._copy, error)

    def _touch_copy(self) -> None:
        """The copy's time is when the ledger was last read, also for whoever starts next."""
        try:
            os.utime(self._copy)
        except OSError:
            self.save()

    def _load_copy(self) -> None:
        try:
            content = json.loads(self._copy.read_bytes())
            read_at = self._copy.stat().st_mtime
            rows, withdrawn = content["rows"], content["withdrawn"]
            entries = read_rows(rows)
            if content["model"] != self.model or not _unbroken(entries):
                raise ValueError
            self.withdrawn = {int(entry): Withdrawal(**why) for entry, why in withdrawn.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, LineageError):
            logger.warning("the copy %s is no ledger of this model: it is not used", self._copy)
            return
        self._heed(rows)
        self._read_at = read_at
        self.problem = NOT_READ


def _unbroken(entries: list[LedgerEntry]) -> bool:
    """Whether every row says what it said when it was written, after the row before it."""
    previous = GENESIS
    for entry in entries:
        if entry.chained and (entry.hash, entry.previous) != (entry.computed, previous):
            return False
        previous = entry.computed
    return True
