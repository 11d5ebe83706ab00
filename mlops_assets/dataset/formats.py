"""The formats of source data: how each is told from the others, and what reads it.

A container (JSON lines, CSV, Parquet ...) holds records; what a record's fields mean is its
shape (``conversations.SHAPES``). A JSON lines format names its shape; a table's follows from
its columns.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import columnar
from mlops_assets.dataset.conversations import NAMES, SHAPES
from mlops_assets.dataset.delimited import read_table
from mlops_assets.dataset.lines import open_plain, read_lines
from mlops_assets.dataset.records import SOUND, Record
from mlops_assets.dataset.shards import find_shards
from mlops_assets.dataset.strict_json import parse_object
from mlops_assets.privacy import excerpt

FORMATS = {
    "messages": "JSON lines in OpenAI's chat form: system turns, tool calls, `tools`",
    "prompt_completion": "JSON lines with `prompt` and `completion`, text or lists of messages",
    "preference": "JSON lines with `chosen` and `rejected`, and `prompt` or a shared beginning",
    "csv": "a header line and rows, separated by comma, semicolon or bar",
    "tsv": "the same, separated by tabs",
    "parquet": "a Parquet file",
    "datasets": "a directory that `datasets` wrote with save_to_disk",
    "shards": "a directory of such files of one kind, as on the Hugging Face hub",
    "labelled_csv": "a directory with train.csv and test.csv, columns text and category",
}
DIRECTORIES = ("datasets", "shards", "labelled_csv")
SPLIT_FILES = ("train", "test")
LABELLED_COLUMNS = {"text", "category"}
SAMPLE = 100  # sound records that decide what the fields of a file are
MOST_NAMES = 20  # field names that an error shows

_MAGIC = {
    b"\xff\xfe\0\0": ("UTF-32 text, not UTF-8 text", "`iconv -f utf-32 -t utf-8`"),
    b"\xff\xfe": ("UTF-16 text, not UTF-8 text", "`iconv -f utf-16 -t utf-8`"),
    b"\xfe\xff": ("UTF-16 text, not UTF-8 text", "`iconv -f utf-16 -t utf-8`"),
    b"\0\0\xfe\xff": ("UTF-32 text, not UTF-8 text", "`iconv -f utf-32 -t utf-8`"),
    b"\x1f\x8b": ("compressed (gzip)", "`gzip -d`"),
    b"PK\x03\x04": ("compressed (zip)", "`unzip`"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "`zstd -d`"),
    b"BZh91AY&SY": ("compressed (bzip2)", "`bzip2 -d`"),
}
_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


class Layout(NamedTuple):
    """What the first records say of all: how the fields are to be read."""

    shape: str
    """One of ``conversations.SHAPES``."""
    fields: frozenset[str]


def detect(path: Path, named: str, mapping: Mapping[str, str]) -> str:
    """The format of the source: the one ``named``, unless that is ``auto``.

    Raises LineageError for a source that is not in a format we read, or not in the named one.
    """
    if path.is_dir() != (named in DIRECTORIES) and named != "auto":
        raise LineageError(
            f"{path} is {'a directory' if path.is_dir() else 'a file'}, which the format"
            f" `{named}` cannot be.",
            f"Correct the format: it is one of auto, {', '.join(FORMATS)}.",
        )
    if path.is_dir():
        return _detect_directory(path) if named == "auto" else named
    kind = _detect_file(path, named)
    if kind != "json":
        return kind
    return layout(path, "json", mapping).shape if named == "auto" else named


def layout(path: Path, kind: str, mapping: Mapping[str, str]) -> Layout:
    """How the fields are to be read, by the first records.

    Raises LineageError where no shape fits them, or where ``mapping`` names a field that none
    of them has.
    """
    sound = (item.content for item in read(path, kind) if item.content is not None)
    # Of each record only the names: a hundred of the longest would be half a gigabyte.
    sample = [frozenset(content) for content in islice(sound, SAMPLE)]
    fields = frozenset[str]().union(*sample)
    if sample and (lost := [column for column in mapping.values() if column not in fields]):
        raise _no_shape(f"{path} has no field {excerpt(lost[0])!r}", fields)
    if kind in SHAPES:
        return Layout(kind, fields)
    present = {name for name in NAMES if mapping.get(name, name) in fields}
    for shape, needed in SHAPES.items():
        if any(set(names) <= present for names in needed):
            return Layout(shape, fields)
    if not sample:  # nothing to go by: every line will be set aside for its own reason
        return Layout("messages", fields)
    raise _no_shape(f"{path} holds no conversations that we can make out", fields)


def read(path: Path, kind: str, columns: Collection[str] = ()) -> Iterator[Record]:
    """Every record of the source; ``columns`` are those needed (all where none is named)."""
    if kind in ("csv", "tsv"):
        return read_table(path, kind)
    if kind == "parquet":
        return columnar.read_parquet(path, columns)
    if kind == "datasets":
        return columnar.read_datasets(path, columns)
    if kind == "shards":
        return _read_shards(path, columns)
    if kind == "labelled_csv":
        return _read_labelled(path)
    return _read_json(path)


def data_files(path: Path, kind: str) -> list[Path]:
    """The files that hold the records."""
    if kind == "datasets":
        return [file for file, _ in columnar.arrow_files(path)]
    if kind == "shards":
        return [shard.file for shard in find_shards(path)]
    if kind == "labelled_csv":
        return [path / f"{name}.csv" for name in SPLIT_FILES]
    return [path]


def _detect_directory(path: Path) -> str:
    if columnar.is_datasets(path):
        return "datasets"
    files = [path / f"{name}.csv" for name in SPLIT_FILES]
    if all(file.is_file() for file in files):
        first = next(read_table(files[0], "csv"), None)
        if first and first.content and first.content.keys() >= LABELLED_COLUMNS:
            return "labelled_csv"
    find_shards(path)
    return "shards"


def _detect_file(path: Path, named: str) -> str:
    """``json`` for JSON lines of any shape, else the format."""
    with open_plain(path) as stream:
        start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:4] == b"PAR1" or named == "parquet":
        return "parquet"
    _refuse_known(path, start)
    if named != "auto":
        return "json" if named in SHAPES else named
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if start.startswith(b"{") or suffix in _JSON_SUFFIXES:
        return "json"
    first_line = start.partition(b"\n")[0]
    for delimiter, kind in ((b"\t", "tsv"), (b",", "csv"), (b";", "csv")):
        if delimiter in first_line:
            return kind
    raise LineageError(
        f"{path} is in none of the formats that we can tell apart.",
        f"Name its format: one of {', '.join(FORMATS)}.",
    )


def _refuse_known(path: Path, start: bytes) -> None:
    """Raise LineageError for what is surely something else."""
    found = next((told for magic, told in _MAGIC.items() if start.startswith(magic)), None)
    nul = [byte == 0 for byte in start[:4]]
    if nul in ([False, True] * 2, [True, False] * 2):
        found = _MAGIC[b"\xff\xfe"]
    if re.match(rb"\[\s*\{", start):
        found = ("one JSON array, not JSON lines", "`jq -c '.[]'`")
    if found:
        raise LineageError(f"{path} is {found[0]}.", f"Convert it first, with {found[1]}.")


def _read_json(path: Path) -> Iterator[Record]:
    for line in read_lines(path):
        content, form = None, line.form
        if form == SOUND:
            content, form = parse_object(line.text)
            if form == "broken_json":
                form = "broken_json" if line.ended else "truncated_line"
                form = form if line.text.strip() else "blank_line"
        yield Record(path.name, line.number, line.text, content, form, size=line.size)


def _read_shards(path: Path, columns: Collection[str]) -> Iterator[Record]:
    for file, kind, split in find_shards(path):
        name = file.relative_to(path).as_posix()
        for record in read(file, kind, columns):
            yield record._replace(file=name, split=split)


def _read_labelled(path: Path) -> Iterator[Record]:
    """Both files; the rows are numbered, and pinned to the split that their file names."""
    for split in SPLIT_FILES:
        file, number = path / f"{split}.csv", 0
        for record in read_table(file, "csv"):
            content = record.content
            if content is not None and not content.keys() >= LABELLED_COLUMNS:
                raise LineageError(
                    f"{file} has no columns text and category.", "Give it a header line with both."
                )
            number += record.form != "blank_line"
            if content is not None:
                content = {**content, "id": f"{split}-{number}"}
            yield record._replace(content=content, split=split)


def _no_shape(problem: str, fields: frozenset[str]) -> LineageError:
    names = sorted(fields)[:MOST_NAMES]
    return LineageError(
        f"{problem}; its fields are {excerpt(', '.join(names)) or 'none'}.",
        "Map ours to yours, such as prompt=question and completion=answer; ours are"
        f" {', '.join(NAMES)}.",
    )
