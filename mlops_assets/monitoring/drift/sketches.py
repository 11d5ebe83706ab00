"""Columns in little room: sketches that add up, so that no record is looked at twice.

Numbers become a KLL sketch (Karnin, Lang and Liberty 2016), which holds every value up to
``EXACT`` of them and beyond that knows their ranks to within 0.01% (``rank_error``). Classes
become counts. A seeded sample of rows is those whose hashed ids are smallest: of samples that
were drawn apart, the smallest are a sample of all.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mlops_assets.monitoring.drift.features import NUMERIC, Column, Values

if TYPE_CHECKING:
    import pyarrow as pa
    from datasketches import kll_doubles_sketch

EXACT = 32_768
"""The k of the sketches of numbers."""
SKETCHES, DRAWN = "sketches.arrow", "drawn.arrow"

Sketch: TypeAlias = "kll_doubles_sketch | Counter[str]"
Sketches: TypeAlias = Mapping[str, Sketch]
"""By column: of numbers, or counts of classes."""


def sketch(columns: Iterable[Column], values: Values) -> dict[str, Sketch]:
    """A sketch of each column's values."""
    return {
        column.name: numbers(values[column.name])
        if column.kind == NUMERIC
        else Counter(values[column.name])
        for column in columns
    }


def numbers(values: Sequence[float]) -> "kll_doubles_sketch":
    """A sketch of numbers, none of which may be NaN: the library would pass over it."""
    import numpy as np
    from datasketches import kll_doubles_sketch

    made = kll_doubles_sketch(EXACT)
    made.update(np.asarray(values, dtype=np.float64))
    return made


def merge(parts: Sequence[Sketches]) -> dict[str, Sketch]:
    """A sketch of all values of all parts, by column; none of them without parts."""
    names = parts[0] if parts else ()
    return {name: _sum([part[name] for part in parts]) for name in names}


def size(sketched: Sketch) -> int:
    """How many values were sketched."""
    return sketched.total() if isinstance(sketched, Counter) else int(sketched.n)


def rank_error(sketched: "kll_doubles_sketch") -> float:
    """How far a rank may be off, as a share of the values, in 99 of 100 sketches; 0 up to
    ``EXACT`` values."""
    return float(sketched.normalized_rank_error(False)) if sketched.is_estimation_mode() else 0.0


def draw(ids: Iterable[str], count: int, seed: int) -> "pa.Table":
    """A seeded sample: ``row`` (the position) and ``rank`` of at most ``count`` of the ids."""
    import numpy as np
    import pyarrow as pa

    ranks = np.frombuffer(b"".join(rank_of(each, seed) for each in ids), dtype=">u8")
    rows = np.argsort(ranks, kind="stable")[:count]
    return pa.table({"rank": ranks[rows].astype(np.uint64), "row": rows.astype(np.int64)})


def rank_of(each: str, seed: int) -> bytes:
    """Where an id stands among others when some are drawn: 8 bytes."""
    key = seed.to_bytes(8)
    return hashlib.blake2b(each.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()


def smallest(drawn: "pa.Table", count: int) -> "pa.Table":
    """The sample of all rows of which ``drawn`` holds samples, in the order of their ranks."""
    return drawn.sort_by("rank").slice(0, count)


def write_sketches(directory: Path, sketches: Sketches, drawn: "pa.Table") -> None:
    """Write both files."""
    import pyarrow as pa

    counts = pa.map_(pa.string(), pa.int64())
    schema = pa.schema([("column", pa.string()), ("numbers", pa.binary()), ("classes", counts)])
    rows = [
        {"column": name, "classes": list(found.items())}
        if isinstance(found, Counter)
        else {"column": name, "numbers": found.serialize()}
        for name, found in sketches.items()
    ]
    write_table(directory / SKETCHES, pa.Table.from_pylist(rows, schema=schema))
    write_table(directory / DRAWN, drawn)


def read_sketches(directory: Path) -> dict[str, Sketch]:
    """What ``write_sketches`` wrote."""
    from datasketches import kll_doubles_sketch

    return {
        row["column"]: Counter(dict(row["classes"]))
        if row["numbers"] is None
        else kll_doubles_sketch.deserialize(row["numbers"])
        for row in read_table(directory / SKETCHES).to_pylist()
    }


def write_table(path: Path, table: "pa.Table") -> None:
    """Write a table in Arrow's file format, which is read without being decoded."""
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_table(path: Path) -> "pa.Table":
    """What ``write_table`` wrote."""
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_file(file).read_all()


def _sum(found: Sequence[Sketch]) -> Sketch:
    if isinstance(found[0], Counter):
        total: Counter[str] = Counter()
        for counts in found:
            total.update(counts)
        return total
    merged = numbers([])
    for part in found:
        merged.merge(part)
    return merged
