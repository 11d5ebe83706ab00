"""What the judge has answered: one SQLite file, by the hash of the question.

Only answers that could be read are kept, so a failure is asked again. The file holds excerpts of
customers' conversations in the judge's words: its owner alone may read it.
"""

import os
import sqlite3
import stat
from pathlib import Path

from mlops_assets.artifacts import LineageError

PRIVATE = 0o600


class JudgeCache:
    """Texts by key. SQLite's journal beside it inherits the file's mode."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE))
        if stat.S_IMODE(path.stat().st_mode) != PRIVATE:
            path.chmod(PRIVATE)
        self._database = sqlite3.connect(path, isolation_level=None)
        try:
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
            )
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise LineageError(
                f"The judge's cache {path} cannot be read ({error}).",
                "Delete it: every question is then asked again.",
            ) from error

    def find(self, key: str) -> str | None:
        """The answer kept under ``key``."""
        row = self._database.execute("SELECT answer FROM answers WHERE key = ?", [key]).fetchone()
        return None if row is None else str(row[0])

    def keep(self, key: str, answer: str) -> None:
        """Keep an answer; it takes the place of one that could no longer be read."""
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", [key, answer])

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
