"""The request log: append-only segments of JSON lines, the source of truth of what was served.

A record is one ``write`` to a file opened for appending, made before the answer's last byte goes
out: what a caller has got in full is in the log, whatever then happens to this process. A record
that does not fit on the disk is taken back, so no half line stays. A predecessor that was killed
while it wrote may leave one: it is closed off with a line break and costs that line alone.

The lines hold what people wrote: files are 0600, in a directory of 0700.
"""

import logging
import os
import re
import threading
from pathlib import Path

import orjson

from mlops_assets.artifacts import LineageError

logger = logging.getLogger(__name__)

SEGMENT = re.compile(r"^(\d{8})\.jsonl$")
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class LogFailed(Exception):
    """The record is not in the log."""


class SegmentLog:
    """Appends records to numbered segments: one process at a time, as the gateway's lock has it."""

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        """Raises LineageError when the directory cannot be used."""
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._descriptor = -1
        self._number = 0
        self._size = 0
        self._unsynced = False
        self._syncing = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            directory.chmod(0o700)
            self._open(max(self._numbers(), default=1))
            self._close_off_torn_line()
        except OSError as error:
            raise LineageError(
                f"The log {directory} cannot be written ({error.strerror}).",
                "Free some space on its disk and see that it is yours.",
            ) from error

    @property
    def position(self) -> tuple[str, int]:
        """Name of the current segment, and its size in bytes."""
        return _name(self._number), self._size

    def append(self, record: object) -> None:
        """Write one record, a dataclass or a mapping. Raises LogFailed if it is not in the log."""
        try:
            line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError as error:
            raise LogFailed(f"the record is no JSON: {error}") from error
        try:
            if self._size and self._size + len(line) > self._segment_bytes:
                self._rotate()
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise LogFailed(error.strerror or "input/output error") from error
        if written != len(line):  # the disk became full under it
            self._take_back()
            raise LogFailed("no space left on device")
        self._size += written
        self._unsynced = True

    def sync(self) -> None:
        """Have the disk keep what was written before. Raises LogFailed. May run in another
        thread; a second one waits for what the first one is about to keep."""
        with self._syncing:
            if not self._unsynced:
                return
            self._unsynced, descriptor = False, self._descriptor
            try:
                os.fdatasync(descriptor)
            except OSError as error:
                if descriptor != self._descriptor:
                    return  # a new segment was begun meanwhile, which syncs the old one
                self._unsynced = True
                raise LogFailed(error.strerror or "input/output error") from error

    def close(self) -> None:
        """Sync and close."""
        if self._descriptor >= 0:
            try:
                self.sync()
            except LogFailed as error:
                logger.error("the log %s could not be synced: %s", self.directory, error)
            os.close(self._descriptor)
            self._descriptor = -1

    def _rotate(self) -> None:
        """Go on in a new segment. The old one stays in use where that cannot be made."""
        full = self._descriptor
        os.fdatasync(full)
        self._open(self._number + 1)
        os.close(full)

    def _open(self, number: int) -> None:
        descriptor = os.open(self.directory / _name(number), FLAGS, 0o600)
        self._descriptor, self._number = descriptor, number
        self._size = os.fstat(descriptor).st_size

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            logger.error("a half record stays at the end of %s: %s", self.directory, error)
            self._size = os.fstat(self._descriptor).st_size

    def _close_off_torn_line(self) -> None:
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")

    def _numbers(self) -> list[int]:
        found = (SEGMENT.match(path.name) for path in self.directory.iterdir())
        return [int(match[1]) for match in found if match]


def _name(number: int) -> str:
    return f"{number:08d}.jsonl"
