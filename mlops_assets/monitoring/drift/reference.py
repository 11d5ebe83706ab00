"""What production is compared with: the newest rows that the release in force was trained on.

The release and not the latest data: a retraining on newer data changes what counts as normal
once its model is released, and not before.

``sketches.arrow`` holds the rows' columns, ``rows.arrow`` the rows themselves in the order in
which a sample takes them, ``vocabulary.txt`` the words of the whole train split, ``known.json``
its classes.
"""

import heapq
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import SHORT, ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.ledger import LedgerEntry
from mlops_assets.monitoring.drift.features import (
    Exchange,
    Known,
    Values,
    column_values,
    detector_version,
    request_text,
    slice_classes,
    words,
)
from mlops_assets.monitoring.drift.sketches import (
    Sketch,
    draw,
    rank_of,
    read_sketches,
    read_table,
    sketch,
    write_sketches,
    write_table,
)
from mlops_assets.monitoring.drift.spec import ReferenceSpec
from mlops_assets.monitoring_refs import DriftReferenceRef
from mlops_assets.refs import (
    ReleaseBundle,
    Row,
    SplitsRef,
    Versions,
    read_rows,
)
from mlops_assets.release_state import read_release

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

KIND = "drift_reference"
ROWS, KNOWN, VOCABULARY = "rows.arrow", "known.json", "vocabulary.txt"
LIBRARIES = ("datasketches", "numpy", "pyarrow")


def release_in_force(entries: Sequence[LedgerEntry], model: str) -> ReleaseBundle | None:
    """What users of ``model`` get by these rows of the ledger; None before the first promotion."""
    stable = read_release(entries, model).stable
    return stable.decision.bundle if stable else None


def splits_of(store: ArtifactStore, release: ReleaseBundle | None, latest: SplitsRef) -> SplitsRef:
    """The splits that the release was trained on; ``latest`` where there is no release, or where
    it was trained elsewhere. Raises LineageError when its adapter was changed."""
    if release is None:
        return latest
    adapter = release.adapter
    inputs = store.recipe(adapter).inputs if store.find(adapter.kind, adapter.key) else {}
    splits = store.find_content("dataset_splits", inputs.get("splits", ""))
    if splits is None:
        logger.warning(
            "what release %s was trained on is not in the store: production is compared with the"
            " latest splits",
            release.digest[:SHORT],
        )
        return latest
    labels = {name: tuple(values) for name, values in store.recipe(splits).spec["labels"]}
    return SplitsRef(splits, Versions.of(splits), splits.summary["rows"], labels)


def make_reference(
    store: ArtifactStore, splits: SplitsRef, release: ReleaseBundle | None, spec: ReferenceSpec
) -> DriftReferenceRef:
    """The reference of ``splits``' newest train rows, stored."""
    labels = [[name, list(values)] for name, values in splits.labels.items()]
    recipe = Recipe(
        kind=KIND,
        inputs={"splits": splits.artifact.digest, "detector": detector_version()},
        spec=spec.model_dump(mode="json") | {"labels": labels},
        code_version=code_digest(__name__),
        libraries=LIBRARIES,
    )

    def produce(directory: Path) -> dict[str, Any]:
        train = read_rows(store.path(splits.artifact) / "train.jsonl")
        return _write(directory, train, splits, spec)

    artifact = store.build(recipe, produce)
    rows, in_force = artifact.summary["rows"], release.digest if release else ""
    return DriftReferenceRef(artifact, rows, in_force, splits.versions)


def read_known(directory: Path) -> Known:
    """What a stored reference knows; of the vocabulary the words alone."""
    found = json.loads((directory / KNOWN).read_bytes())
    vocabulary = (directory / VOCABULARY).read_text(encoding="utf-8").split("\n")
    return Known(dict.fromkeys(vocabulary, 1), found["labels"], found["slices"])


def read_reference(directory: Path) -> dict[str, Sketch]:
    """A stored reference's sketches."""
    return read_sketches(directory)


def reference_sample(directory: Path, count: int) -> "pa.Table":
    """A seeded sample of a stored reference's rows: ``id``, ``text``, ``answer``, and a value of
    each column."""
    return read_table(directory / ROWS).slice(0, count)


def rows_table(ids: Iterable[str], exchanges: Sequence[Exchange], values: Values) -> "pa.Table":
    """Rows as a sample of either side has them."""
    import pyarrow as pa

    texts = {
        "id": list(ids),
        "text": [exchange.text for exchange in exchanges],
        "answer": [exchange.answer for exchange in exchanges],
    }
    return pa.table(texts | {name: list(given) for name, given in values.items()})


def _write(
    directory: Path, train: Iterable[Row], splits: SplitsRef, spec: ReferenceSpec
) -> dict[str, Any]:
    frequency: Counter[str] = Counter()
    # Where no row has a time, or many the same, the seeded hash of the id decides.
    rows = heapq.nlargest(
        spec.reference_rows,
        _counted(train, frequency),
        key=lambda row: (row.timestamp, rank_of(row.id, spec.seed)),
    )
    known = Known(frequency, splits.labels, slice_classes(row.slices for row in rows))
    exchanges = [Exchange(request_text(row.messages), row.answer, row.slices) for row in rows]
    values = column_values(exchanges, known, in_vocabulary=True)
    drawn = draw((row.id for row in rows), len(rows), spec.seed)
    write_sketches(directory, sketch(known.columns, values), drawn)
    table = rows_table((row.id for row in rows), exchanges, values)
    write_table(directory / ROWS, table.take(drawn["row"]))
    (directory / VOCABULARY).write_text("\n".join(sorted(frequency)), encoding="utf-8")
    (directory / KNOWN).write_text(json.dumps({"labels": known.labels, "slices": known.slices}))
    times = [row.timestamp for row in rows if row.timestamp]
    return {
        "rows": len(rows),
        "train_rows": splits.rows["train"],
        "words": len(frequency),
        "first": min(times, default=""),
        "last": max(times, default=""),
    }


def _counted(rows: Iterable[Row], frequency: Counter[str]) -> Iterator[Row]:
    for row in rows:
        frequency.update(set(words(request_text(row.messages))))
        yield row
