"""Reads Parquet files and directories written by ``datasets``, in a process of limited memory.

The child (``columnar_rows.py``) writes JSON lines into a pipe, so neither a bomb nor a file
that crashes the library takes more than its limit or brings the run down.
"""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import orjson

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import columnar_rows
from mlops_assets.dataset.lines import LONGEST_LINE, SHOWN, open_plain
from mlops_assets.dataset.records import SOUND, Record
from mlops_assets.dataset.shards import pinned_splits
from mlops_assets.dataset.strict_json import parse_object

MEMORY = 2**30  # bytes that the reading process may allocate
LONGEST_STATE = 2**20  # bytes of a state.json
STATE, SPLITS = "state.json", "dataset_dict.json"


def read_parquet(path: Path, columns: Collection[str] = ()) -> Iterator[Record]:
    """Every row, with the named columns (all where none is named). Raises as ``_rows`` does."""
    return _rows("parquet", path, columns, path.name, None)


def read_datasets(path: Path, columns: Collection[str] = ()) -> Iterator[Record]:
    """Every row of what ``save_to_disk`` wrote: a dataset, or a dictionary of splits.

    Raises LineageError for a directory that is not one, and as ``_rows`` does.
    """
    for file, split in arrow_files(path):
        yield from _rows("arrow", file, columns, file.relative_to(path).as_posix(), split)


def is_datasets(path: Path) -> bool:
    """Whether the directory was written by ``save_to_disk``."""
    return (path / STATE).is_file() or (path / SPLITS).is_file()


def arrow_files(path: Path) -> list[tuple[Path, str | None]]:
    """The data files in order, each with the split that its place pins it to.

    Raises LineageError where the directory names a file that is not a plain one inside it.
    """
    if not (path / SPLITS).is_file():
        return [(file, None) for file in _shards(path)]
    names = _names(path / SPLITS, lambda content: content["splits"])
    pinned = pinned_splits(names, path)
    return [(file, pinned[name]) for name in names for file in _shards(path / name)]


def _shards(folder: Path) -> list[Path]:
    names = _names(
        folder / STATE, lambda content: [item["filename"] for item in content["_data_files"]]
    )
    return [folder / name for name in names]


def _names(file: Path, find: Any) -> list[str]:
    """The plain names that a small JSON file lists: no path, nothing outside the directory."""
    try:
        with open_plain(file) as stream:
            names = find(json.loads(stream.read(LONGEST_STATE)))
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError("no names")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LineageError(
            f"{file} is not what `datasets` writes.", "Write it again with save_to_disk."
        ) from error
    if outside := [name for name in names if Path(name).name != name or name == ".."]:
        raise LineageError(
            f"{file} names {outside[0]!r}, which is a path and not a file beside it.",
            "Write the directory again with save_to_disk; do not trust this one.",
        )
    return list(names)


def _rows(
    kind: str, path: Path, columns: Collection[str], name: str, split: str | None
) -> Iterator[Record]:
    """The rows of one file. Raises LineageError for a file that is damaged or a bomb."""
    open_plain(path).close()
    command = [sys.executable, "-P", columnar_rows.__file__, str(MEMORY), str(LONGEST_LINE)]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [*command, json.dumps(sorted(columns)), kind, str(path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with child:
        try:
            for number, line in enumerate(child.stdout or (), 1):
                if line.endswith(b"\n"):  # a child that died may leave half a line
                    yield _record(name, number, line, split)
            code = child.wait()
        finally:
            child.kill()
    if code:
        raise _refused(path, code)


def _record(name: str, number: int, line: bytes, split: str | None) -> Record:
    value = orjson.loads(line)
    if isinstance(value, str):
        return Record(name, number, "", None, value, split, len(line))
    source = line[: 4 * SHOWN].decode("utf-8", "replace")
    if b"\\u0000" in line and (form := parse_object(line.decode())[1]) != SOUND:
        return Record(name, number, source, None, form, split, len(line))
    content = {key: _without_none(item) for key, item in value.items()}
    return Record(name, number, source, content, SOUND, split, len(line))


def _without_none(value: Any) -> Any:
    """Arrow gives every struct all fields of its column; the absent ones are None."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _refused(path: Path, code: int) -> LineageError:
    problems = {
        columnar_rows.NO_MEMORY: f"needs more than {MEMORY >> 20} MiB of memory to read",
        columnar_rows.EXPANDS: "expands to more than a thousand times its size",
    }
    problem = problems.get(code, "is damaged: its rows cannot be read")
    return LineageError(
        f"{path} {problem}.",
        "Write it again from a source that you trust, with smaller row groups, or as JSON lines.",
    )
