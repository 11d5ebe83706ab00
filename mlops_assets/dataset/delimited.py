"""Reads CSV and TSV row by row, so that an open quote costs its own line and not the file.

Python's parser reads on from an open quote until it is closed, at worst to the end of the
file. Here the lines of a row that cannot be right are given back, and all but the first are
read again.
"""

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset.lines import LONGEST_LINE, SHOWN, Line, read_lines
from mlops_assets.dataset.records import FORMS, SOUND, Record, hint

MOST_LINES = 500  # of one row
DELIMITERS = {"csv": ",;|", "tsv": "\t"}


def read_table(path: Path, kind: str) -> Iterator[Record]:
    """Every row after the header, its fields by column; ``kind`` is ``csv`` or ``tsv``.

    Raises LineageError for a file without a usable header.
    """
    lines = _Lines(read_lines(path))
    delimiter = _delimiter(lines, DELIMITERS[kind])
    header = [name.strip() for name in _header(path, lines, delimiter)]
    while first := lines.next_row():
        yield _record(path.name, lines, first, header, delimiter)


class _Lines:
    """The lines of the file, some of which may be given back."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._waiting: deque[Line] = deque()
        self.taken: list[Line] = []
        """The lines of the row being read."""

    def next_row(self) -> Line | None:
        """The first line of the next row."""
        self.taken = []
        return self._take()

    def texts(self) -> Iterator[str]:
        """The texts of the row's lines, for the parser; they end where no row goes on."""
        yield self.taken[0].text
        size = len(self.taken[0].text)
        while len(self.taken) < MOST_LINES and (line := self._take()):
            size += len(line.text)
            if line.form != SOUND or size > LONGEST_LINE:
                self._waiting.appendleft(self.taken.pop())
                return
            yield line.text

    def give_back(self) -> None:
        """Keep the row's first line alone."""
        self._waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def peek(self) -> Line | None:
        """The next line, not taken."""
        if (line := self.next_row()) is not None:
            self._waiting.appendleft(line)
        return line

    def _take(self) -> Line | None:
        line = self._waiting.popleft() if self._waiting else next(self._source, None)
        if line is not None:
            self.taken.append(line)
        return line


def _delimiter(lines: _Lines, choices: str) -> str:
    """The one that the header line holds most often; the first where it holds none."""
    first = lines.peek()
    return max(choices, key=(first.text if first else "").count)


def _header(path: Path, lines: _Lines, delimiter: str) -> list[str]:
    first = lines.next_row()
    names, form = _fields(lines, first, delimiter) if first else ([], "blank_line")
    if form == SOUND and len(set(names)) == len(names) > 0:
        return names
    problem = "a column stands there twice" if form == SOUND else FORMS[form]
    raise LineageError(
        f"The header line of {path} cannot be used: {problem}.",
        f"Give the file one header line that names each column once.{hint({form: 1})}",
    )


def _record(file: str, lines: _Lines, first: Line, header: list[str], delimiter: str) -> Record:
    fields, form = _fields(lines, first, delimiter)
    if form == SOUND and len(fields) != len(header):
        if len(lines.taken) > 1:
            form = "unclosed_quote"
        else:
            form = "broken_csv" if first.ended or len(fields) > len(header) else "truncated_line"
        lines.give_back()
    source = "".join(line.text for line in lines.taken)[:SHOWN]
    content = dict(zip(header, fields, strict=True)) if form == SOUND else None
    size = sum(line.size for line in lines.taken)
    return Record(file, first.number, source, content, form, size=size)


def _fields(lines: _Lines, first: Line, delimiter: str) -> tuple[list[str], str]:
    """The fields of the row that begins with ``first``, or what is wrong with that line."""
    if first.form != SOUND:
        return [], first.form
    if not first.text.strip("\r\n"):
        return [], "blank_line"
    try:
        return next(csv.reader(lines.texts(), delimiter=delimiter, strict=True)), SOUND
    except csv.Error as error:
        form = _fault(lines, first, error)
        lines.give_back()
        return [], form


def _fault(lines: _Lines, first: Line, error: csv.Error) -> str:
    if len(first.text) > csv.field_size_limit():
        return "oversize_line"
    still_open = len(lines.taken) > 1 or str(error).startswith("unexpected end")
    return "unclosed_quote" if still_open else "broken_csv"
