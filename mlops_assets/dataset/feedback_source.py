"""The rows that people's feedback gave, as they stand after the source's.

The asset ``feedback_rows`` writes them, one version after the other; here they are read like any
other data, and judged like it. They are rows to learn from and never to measure with: whatever
they say of themselves, they are pinned to train.
"""

from collections.abc import Iterator
from pathlib import Path

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import fetching, formats, versioning
from mlops_assets.dataset.records import Record

TRAINING = "training.jsonl"
NAME = f"feedback/{TRAINING}"
"""What the file is called among the source's files."""
FIELDS = frozenset({"id", "timestamp", "group", "messages"})


def locate(directory: str) -> Path | None:
    """The rows in this directory, pulled from DVC's remote where only their pointer is here.

    None where the directory is not named, or nobody has given feedback yet. Raises LineageError
    for a link in their place, and for pinned rows that cannot be had.
    """
    if not directory:
        return None
    rows = versioning.resolve(directory) / TRAINING
    if rows.is_symlink():
        raise LineageError(f"{rows} is a symbolic link.", "Put the file itself there.")
    if not rows.exists() and versioning.pin(rows) is not None:
        fetching.fetch_missing(rows)
    return rows if rows.exists() and rows.stat().st_size else None


def read(rows: Path) -> Iterator[Record]:
    """The records, pinned to train."""
    for record in formats.read(rows, "messages"):
        yield record._replace(file=NAME, split="train")
