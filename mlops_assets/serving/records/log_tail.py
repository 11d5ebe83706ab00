"""The request log from a position on: what was appended since somebody last looked.

Segments are read in the order of their names, and of each only whole lines: a line without its end
is still being written, or was torn when its writer was killed. The last segment may grow; one
that a later segment follows is complete.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 64 * 1024
"""Bytes that are read at once: a millisecond of work, after which the thread that answers requests
gets its turn."""


@dataclass(frozen=True)
class Position:
    """Everything before it has been read."""

    segment: str = ""
    """Name of a file in the log's directory."""
    offset: int = 0
    """Bytes of that file."""


BEGINNING = Position()


def blocks(
    directory: Path, start: Position, end: Position | None = None
) -> Iterator[tuple[list[bytes], Position]]:
    """Lines after ``start``, a block at a time, each block with the position behind it.

    ``end`` is a position that an earlier call gave: nothing behind it is read.
    """
    # Listed before anything is read: a segment that has a successor here is complete.
    for path in sorted(directory.glob("*.jsonl")):
        if path.name < start.segment or (end is not None and path.name > end.segment):
            continue
        offset = start.offset if path.name == start.segment else 0
        last = end.offset if end is not None and path.name == end.segment else None
        for lines, behind in _lines(path, offset, last):
            yield lines, Position(path.name, behind)


def _lines(path: Path, offset: int, end: int | None) -> Iterator[tuple[list[bytes], int]]:
    with path.open("rb") as stream:
        while block := _read(stream, offset, end):
            whole = block[: block.rfind(b"\n") + 1]
            if not whole:
                return
            offset += len(whole)
            yield whole[:-1].split(b"\n"), offset


def _read(stream: BinaryIO, offset: int, end: int | None) -> bytes:
    """A block from ``offset`` on, with the rest of its last line; ``end`` is the end of a line."""
    stream.seek(offset)  # a torn line's beginning was read already
    block = stream.read(BLOCK if end is None else min(BLOCK, end - offset))
    return block if not block or block.endswith(b"\n") else block + stream.readline()
