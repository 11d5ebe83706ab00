"""The physical lines of a text file, of which only one is ever in memory.

A file without line ends, or with one line of a gigabyte, costs one block: the line is skipped
to its end and stays one line of the count.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset.records import SOUND

LONGEST_LINE = 2**20  # bytes, line end included; some 250,000 tokens
BLOCK = 2**20  # bytes
SHOWN = 8000  # characters of a line that are kept to show of it
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One physical line."""

    number: int
    """From 1."""
    text: str
    """With its line end; of a line with a fault only what is needed to show it."""
    form: str
    """``SOUND``, or what is wrong with it: one of ``records.FORMS``."""
    ended: bool
    """Whether a line feed ends it; only a last line may lack one."""
    size: int
    """Bytes in the file."""


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of the file. Raises LineageError for a file that cannot be read."""
    with open_plain(path) as stream:
        number = 0
        while data := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(data) > LONGEST_LINE:
                size, ended = _skip_line(stream, data)
                yield Line(number, _shown(data), "oversize_line", ended, size)
            else:
                yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if number == 1 else data)


def open_plain(path: Path) -> IO[bytes]:
    """The file, opened for reading; no link, device or pipe in its place.

    Raises LineageError for anything else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        problem = "is a symbolic link" if path.is_symlink() else f"({error.strerror})"
        raise LineageError(
            f"{path} cannot be read: {problem.strip('()')}.",
            "Give the path of a plain file that you may read.",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LineageError(
            f"{path} cannot be read: it is not a plain file.", "Give the path of a plain file."
        )
    return os.fdopen(descriptor, "rb", buffering=BLOCK)


def _line(number: int, data: bytes) -> Line:
    ended = data.endswith(b"\n")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Line(number, _shown(data), "not_utf8", ended, len(data))
    if "\0" in text:
        return Line(number, text[:SHOWN], "nul_byte", ended, len(data))
    return Line(number, text, SOUND, ended, len(data))


def _skip_line(stream: IO[bytes], part: bytes) -> tuple[int, bool]:
    """Read on from ``part`` to the end of the line: its bytes, and whether it has an end."""
    size = len(part)
    while not part.endswith(b"\n"):
        if not (part := stream.readline(BLOCK)):
            return size, False
        size += len(part)
    return size, True


def _shown(data: bytes) -> str:
    return data[: 4 * SHOWN].decode("utf-8", "replace")[:SHOWN]
