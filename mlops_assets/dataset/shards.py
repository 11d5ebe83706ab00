"""A directory of data files of one kind, as datasets lie on the Hugging Face hub.

data/train-00000-of-00002.parquet   data/train-00001-of-00002.parquet   data/test.parquet
"""

from pathlib import Path
from typing import NamedTuple

from mlops_assets.artifacts import LineageError

SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
TRAIN, TEST = ("train", "valid", "dev", "eval"), ("test",)


class Shard(NamedTuple):
    """One data file of a directory."""

    file: Path
    kind: str
    split: str | None


def find_shards(path: Path) -> list[Shard]:
    """The data files below the directory, in order of name; other files are left alone.

    Raises LineageError for a directory without any, with more than one kind, or with names
    of which some tell their split and others do not.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    kinds = {SUFFIXES[file.suffix.lower()] for file in files}
    if len(kinds) != 1:
        found = "files of more than one kind" if kinds else "no data file"
        raise LineageError(
            f"{path} is a directory with {found} ({', '.join(SUFFIXES)}), and not one that"
            " `datasets` wrote (state.json).",
            "Give the path of one file, or of a directory with files of one kind.",
        )
    names = [_split_name(file, path) for file in files]
    pinned = pinned_splits(names, path) if any(map(split_kind, names)) else {}
    kind = kinds.pop()
    return [Shard(file, kind, pinned.get(name)) for file, name in zip(files, names, strict=True)]


def pinned_splits(names: list[str], path: Path) -> dict[str, str | None]:
    """``train`` or ``test`` for each split by its name; None for all where none is a test.

    Our validation rows are drawn from train, so a split for choosing (``validation``, ``dev``)
    counts as train. Raises LineageError for a name that tells neither.
    """
    pinned = {name: split_kind(name) for name in names}
    if unknown := [name for name, kind in pinned.items() if kind is None]:
        raise LineageError(
            f"The split {unknown[0]!r} of {path} is neither for training nor for testing.",
            "Name it train..., validation... or test..., or give the path of one split.",
        )
    return pinned if "test" in pinned.values() else dict.fromkeys(names)


def split_kind(name: str) -> str | None:
    """What rows of a split with this name are for: ``train``, ``test``, or None."""
    name = name.lower()
    return "test" if name.startswith(TEST) else "train" if name.startswith(TRAIN) else None


def _split_name(file: Path, root: Path) -> str:
    """The file's name, or that of a folder on the way to it, whichever tells a split."""
    parts = file.relative_to(root).parts
    return next((part for part in reversed(parts) if split_kind(part)), parts[-1])
