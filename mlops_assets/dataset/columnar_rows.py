"""Writes the rows of Parquet or Arrow files as JSON lines; a program of its own.

A few kilobytes of Parquet may expand to any size, and its footer may lie about it: only a
process with a limit on its memory is safe to read it. One line a row: an object, or a string
that names the row's fault.

    python columnar_rows.py MEMORY_BYTES LONGEST_ROW_BYTES '["column", ...]' KIND FILE
"""

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = 64  # at a time
NO_MEMORY, EXPANDS, DAMAGED = 3, 4, 5
"""Exit codes: the limit was reached; the rows are too many times the file; it is not sound."""
EXPANSION, FREE_EXPANSION = 1000, 2**26
"""Rows may take this many times the file's bytes and this many bytes more: dictionary-encoded
text with one system prompt for all rows stays far below, a bomb far above."""


def main(longest: int, columns: list[str], kind: str, path: Path) -> int:
    """Write the rows; returns the exit code."""
    import orjson
    import pyarrow as pa

    allowed = path.stat().st_size * EXPANSION + FREE_EXPANSION
    try:
        for row in _rows(kind, path, columns):
            line = row if isinstance(row, bytes) else orjson.dumps(row, default=_no_text)
            allowed -= len(line)
            if allowed < 0:
                return EXPANDS
            sys.stdout.buffer.write(line if len(line) < longest else b'"oversize_line"')
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
    except (MemoryError, pa.ArrowMemoryError):
        return NO_MEMORY
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return DAMAGED
    return 0


def _rows(kind: str, path: Path, columns: list[str]) -> Iterator[Any]:
    for batch in _batches(kind, path, columns):
        for start in range(0, batch.num_rows, ROWS):
            yield from _values(batch.slice(start, ROWS))


def _values(batch: Any) -> list[Any]:
    try:
        rows: list[Any] = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [b'"not_utf8"']
        return [value for at in range(batch.num_rows) for value in _values(batch.slice(at, 1))]
    return rows


def _batches(kind: str, path: Path, columns: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet":
        file = pq.ParquetFile(path, pre_buffer=False)
        wanted = _wanted(file.schema_arrow.names, columns)
        yield from file.iter_batches(batch_size=ROWS, columns=wanted, use_threads=False)
        return
    with pa.OSFile(str(path)) as stream:
        reader = pa.ipc.open_stream(stream)
        wanted = _wanted(reader.schema.names, columns)
        for batch in reader:
            yield batch.select(wanted)


def _wanted(names: list[str], columns: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a column's name stands twice")
    return [name for name in names if not columns or name in columns]


def _no_text(_: object) -> None:
    """In place of a value that JSON has no form for, such as bytes."""


if __name__ == "__main__":
    memory, longest, columns, kind, path = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    sys.exit(main(int(longest), json.loads(columns), kind, Path(path)))
