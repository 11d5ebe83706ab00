"""The newest records of production's log as sketches, of which each part is made once.

A part that was sketched against a reference is not read again. The sketches of a log's parts add
up to those of the whole log, so a verdict on a million records reads some megabytes.

Production's records are those that a user was answered by the release in force, because another
release's answers are no news of this one; those of a ``simulated`` release always count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.monitoring.drift.design_effect import Users, add, count, numbered
from mlops_assets.monitoring.drift.features import (
    NUMERIC,
    Exchange,
    Known,
    Values,
    column_values,
    detector_version,
    request_text,
)
from mlops_assets.monitoring.drift.reference import LIBRARIES, read_known, rows_table
from mlops_assets.monitoring.drift.sketches import (
    DRAWN,
    Sketch,
    draw,
    merge,
    read_sketches,
    read_table,
    sketch,
    smallest,
    write_sketches,
    write_table,
)
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.log.window import PartRows, newest, read
from mlops_assets.monitoring_refs import DriftReferenceRef, PredictionLogRef
from mlops_assets.request_record import SIMULATED

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("id", "release", "answered", "user", "user_named", "messages", "output", "slices")
USERS = "users.arrow"


@dataclass(frozen=True)
class SketchedLog:
    """The newest records of a log."""

    sketches: Mapping[str, Sketch]
    parts: Sequence[Sequence[PartRows]]
    """The rows of each part."""
    drawn: "pa.Table"
    """A seeded sample of the records: ``rank``, ``row`` within those of the part, ``part``,
    ``user``, and a value of each column."""
    users: Users
    records: int


def sketch_log(
    store: ArtifactStore, log: PredictionLogRef, reference: DriftReferenceRef, spec: DriftSpec
) -> SketchedLog:
    """Sketch the parts that are new, and add up all.

    Raises LineageError when a part or the reference is missing or was changed.
    """
    import pyarrow as pa

    known = read_known(store.path(reference.artifact))
    grouped = groupby(newest(store, log), key=lambda rows: rows.part)
    parts = [list(rows) for _, rows in grouped]
    made = [_sketched(store, rows, known, reference, spec) for rows in parts]
    nothing = sketch(known.columns, column_values([], known))
    directories = [store.path(artifact) for artifact in made]
    drawn = [
        table.append_column("part", pa.array([index] * len(table), pa.int64()))
        for index, table in enumerate(read_table(path / DRAWN) for path in directories)
    ]
    none = _draw([], column_values([], known), pa.array([], pa.uint64()), known, spec)
    none = none.append_column("part", pa.array([], pa.int64()))
    users = [
        Users(read_table(path / USERS), artifact.summary["unnamed"])
        for path, artifact in zip(directories, made, strict=True)
    ]
    return SketchedLog(
        merge([nothing, *map(read_sketches, directories)]),
        parts,
        smallest(pa.concat_tables([none, *drawn]), spec.sample_rows),
        add(users),
        sum(artifact.summary["records"] for artifact in made),
    )


def log_sample(store: ArtifactStore, log: SketchedLog, reference: DriftReferenceRef) -> "pa.Table":
    """The drawn records as ``reference_sample`` has its rows, with the ``user`` of each."""
    import pyarrow.compute as pc

    known = read_known(store.path(reference.artifact))
    drawn = log.drawn.take(pc.sort_indices(log.drawn["part"]))  # stable
    rows = zip(drawn["part"].to_pylist(), drawn["row"].to_pylist(), strict=True)
    tables = [
        _records(store, log.parts[part], reference.release).take([row for _, row in chosen])
        for part, chosen in groupby(rows, key=itemgetter(0))
    ]
    found = [record for table in tables for record in _exchanges(table)]
    ids = [each for table in tables for each in table["id"].to_pylist()]
    sample = rows_table(ids, found, column_values(found, known))
    return sample.append_column("user", drawn["user"])


def _sketched(
    store: ArtifactStore,
    rows: Sequence[PartRows],
    known: Known,
    reference: DriftReferenceRef,
    spec: DriftSpec,
) -> Artifact:
    settings = {"release": reference.release, "sample_rows": spec.sample_rows, "seed": spec.seed}
    recipe = Recipe(
        kind="drift_sketch",
        inputs={
            "part": rows[0].part.digest,
            "reference": reference.artifact.digest,
            "detector": detector_version(),
        },
        spec=settings | {"runs": [[each.start, each.stop] for each in rows]},
        code_version=code_digest(__name__),
        libraries=LIBRARIES,
    )

    def produce(directory: Path) -> dict[str, Any]:
        records = _records(store, rows, reference.release)
        values = column_values(_exchanges(records), known)
        asked = numbered(_users(records), spec.seed)
        drawn = _draw(records["id"].to_pylist(), values, asked, known, spec)
        write_sketches(directory, sketch(known.columns, values), drawn)
        write_table(directory / USERS, (users := count(asked)).counts)
        return {"records": len(records), "unnamed": users.unnamed}

    # A line of the log for each of a hundred parts that were found would be noise.
    return store.find(recipe.kind, recipe.key) or store.build(recipe, produce)


def _draw(
    ids: Sequence[str], values: Values, users: "pa.Array", known: Known, spec: DriftSpec
) -> "pa.Table":
    """A seeded sample of records, with the user and the values of each."""
    import pyarrow as pa

    drawn = draw(ids, spec.sample_rows, spec.seed)
    columns = {
        column.name: pa.array(
            values[column.name], pa.float64() if column.kind == NUMERIC else pa.string()
        )
        for column in known.columns
    }
    for name, given in {"user": users, **columns}.items():
        drawn = drawn.append_column(name, given.take(drawn["row"]))
    return drawn


def _records(store: ArtifactStore, rows: Sequence[PartRows], release: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.concat_tables([read(store, each, COLUMNS) for each in rows])
    table = table.filter(table["answered"])
    if not release:
        return table
    return table.filter(pc.is_in(table["release"], pa.array([release, SIMULATED])))


def _users(records: "pa.Table") -> "pa.ChunkedArray":
    """Who asked, by the hash that the log holds; null where the caller named nobody."""
    import pyarrow as pa
    import pyarrow.compute as pc

    named = pc.fill_null(records["user_named"], True)  # older parts do not say
    known = pc.and_(pc.not_equal(records["user"], ""), named)
    return pc.if_else(known, records["user"], pa.scalar(None, pa.string()))


def _exchanges(records: "pa.Table") -> list[Exchange]:
    columns = (records[name].to_pylist() for name in ("messages", "output", "slices"))
    return [
        Exchange(request_text(orjson.loads(messages)), output, dict(slices or ()))
        for messages, output, slices in zip(*columns, strict=True)
    ]
