"""Windows of production beside a reference, drawn again and again from many rows: how often the
drift verdict alarms where nothing has changed, and where something has.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.dataset import production, synthetic
from mlops_assets.dataset.dice import Dice
from mlops_assets.monitoring.drift.embedding import embedding_finding
from mlops_assets.monitoring.drift.features import (
    NUMERIC,
    Exchange,
    Known,
    column_values,
    request_text,
    slice_classes,
    words,
)
from mlops_assets.monitoring.drift.findings import Finding, Verdict, decide
from mlops_assets.monitoring.drift.sketches import Sketches, merge, sketch
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.text_embeddings import TextEmbeddings
from mlops_assets.monitoring.drift.verdict import compare
from mlops_assets.refs import Row
from mlops_assets.sentence_encoder import packaged_encoder

ENCODED = 6_000
TICKET_LABELS = {name: tuple(values) for name, values in synthetic.LABELS.items()}


@dataclass(frozen=True)
class Pool:
    """The columns of many rows. Which of their words are unknown depends on the reference."""

    values: Mapping[str, np.ndarray]
    counts: Any
    """How often each word stands in each row: a sparse matrix."""

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def take(self, rows: np.ndarray, frequency: np.ndarray, own: int) -> dict[str, list[Any]]:
        """The columns of these rows, beside a reference in whose texts words stand so often."""
        taken = {name: values[rows].tolist() for name, values in self.values.items()}
        unknown = self.counts[rows] @ (frequency <= own)
        return taken | {"unknown_words": (unknown / np.maximum(taken["words"], 1)).tolist()}

    def frequency(self, rows: np.ndarray) -> np.ndarray:
        """In how many of these rows each word stands."""
        return np.asarray((self.counts[rows] > 0).sum(axis=0)).ravel()


@dataclass(frozen=True)
class World:
    """Rows to draw from."""

    known: Known
    train: Pool
    production: Pool
    """The very same as ``train`` where rows are dealt out to both sides."""
    shifted: Pool
    texts: Sequence[str]
    """Of ``production``."""
    shifted_texts: Sequence[str]
    meanings: "Meanings | None" = None

    @classmethod
    def of(
        cls,
        labels: dict[str, tuple[str, ...]],
        train: Sequence[Exchange],
        production: Sequence[Exchange] | None = None,
        shifted: Sequence[Exchange] = (),
    ) -> "World":
        """A world of these rows; without ``production`` those of ``train`` are dealt out."""
        known = Known({}, labels, slice_classes(row.slices for row in train))
        sides = [train, production or [], shifted]
        texts = [row.text for side in sides for row in side]
        counter = CountVectorizer(analyzer=words).fit(texts)
        pools = [_pool(side, known, counter) for side in sides]
        calm = train if production is None else production
        dealt = pools[0] if production is None else pools[1]
        encoded, moved = ([row.text for row in side[:ENCODED]] for side in (calm, shifted))
        return cls(known, pools[0], dealt, pools[2], encoded, moved)

    def draw(self, rows: int, seed: int) -> "Drawn":
        """A reference of so many rows, and what is left for windows beside it."""
        dice = np.random.default_rng(seed)
        order = dice.permutation(len(self.train))
        left = order[rows:] if self.train is self.production else np.arange(len(self.production))
        frequency = self.train.frequency(order[:rows])
        values = self.train.take(order[:rows], frequency, own=1)
        return Drawn(self, values, sketch(self.known.columns, values), frequency, left, dice)

    def with_meanings(self, store: ArtifactStore) -> "World":
        """The same with the embeddings of some of the texts, by the installed encoder.

        Raises LineageError where none is installed.
        """
        encoder = TextEmbeddings(store, packaged_encoder())
        calm = encoder.of(self.texts)
        shifted = encoder.of(self.shifted_texts) if self.shifted_texts else calm[:0]
        return replace(self, meanings=Meanings(calm, shifted))


def _pool(rows: Sequence[Exchange], known: Known, counter: Any) -> Pool:
    values = column_values(rows, known)
    columns = {column.name: column for column in known.columns if column.name != "unknown_words"}
    return Pool(
        {
            name: np.array(values[name], float if column.kind == NUMERIC else object)
            for name, column in columns.items()
        },
        counter.transform([row.text for row in rows]) if rows else csr_matrix((0, 0)),
    )


@dataclass(frozen=True)
class Meanings:
    """Embeddings of texts, as (texts, dimensions), to deal out to both sides.

    Not of the very rows whose other columns are compared: there would be too many to encode.
    """

    calm: np.ndarray
    shifted: np.ndarray

    def finding(
        self, records: int, share: float, spec: DriftSpec, dice: np.random.Generator
    ) -> Finding:
        """What the report would find in a window of so many records."""
        sides = self.sides(records, share, spec.embedding_rows, dice)
        seed = int(dice.integers(2**31))
        return embedding_finding("request_embedding", *sides, seed, spec.min_effect)

    def sides(
        self, records: int, share: float, most: int, dice: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """``most`` texts of the reference, and of a window of so many records at most as many."""
        size = min(records, most)
        moved = round(share * size)
        dealt = dice.permutation(len(self.calm))[: most + size - moved]
        shifted = dice.permutation(len(self.shifted))[:moved]
        current = np.concatenate([self.calm[dealt[most:]], self.shifted[shifted]])
        return self.calm[dealt[:most]], current


@dataclass(frozen=True)
class Drawn:
    """A reference, and rows to draw windows from."""

    world: World
    values: Mapping[str, list[Any]]
    """The reference's columns."""
    reference: Sketches
    frequency: np.ndarray
    """In how many texts of the reference each word stands."""
    left: np.ndarray
    dice: np.random.Generator

    def verdict(self, records: int, spec: DriftSpec, share: float = 0.0) -> Verdict:
        """What the report would say of a window, in which ``share`` of the records are shifted."""
        world, moved = self.world, round(share * records)
        columns = world.known.columns
        calm = self.dice.choice(self.left, records - moved, replace=False)
        parts = [world.production.take(calm, self.frequency, own=0)]
        if moved:
            rows = self.dice.choice(len(world.shifted), moved, replace=False)
            parts.append(world.shifted.take(rows, self.frequency, own=0))
        current = merge([sketch(columns, values) for values in parts])
        found = compare(columns, self.reference, current, spec)
        if world.meanings:
            found.append(world.meanings.finding(records, share, spec, self.dice))
        return decide(found, spec.alpha)


def tickets(train: int, records: int, shifted: int = 0) -> World:
    """The shipped generator: its training tickets, and what a release that errs in one of ten
    answered; ``shifted`` is the shipped shifted mix."""
    rows = [
        Exchange(request_text(row.messages), row.answer, row.slices) for row in ticket_rows(train)
    ]
    answered = [list(logged(name, n)) for name, n in (("unshifted", records), ("shifted", shifted))]
    return World.of(TICKET_LABELS, rows, *answered)


def ticket_rows(count: int) -> list[Row]:
    """Train rows from the shipped generator."""
    names = ("channel", "product", "language_style")
    return [
        Row(
            ticket["id"],
            ticket["timestamp"],
            ticket["customer_id"],
            tuple(ticket["messages"]),
            {name: ticket[name] for name in names},
        )
        for ticket in synthetic.sound_tickets(Dice(1), count, synthetic.Mix())
    ]


def logged(sample: str, records: int) -> Iterator[Exchange]:
    """What a simulated release was asked and answered, in a mix that we ship."""
    for line in production.record_lines(records, 5, *production.MIXES[sample]):
        yield exchange(json.loads(line))


def exchange(record: Mapping[str, Any]) -> Exchange:
    """A line of a log as columns see it."""
    return Exchange(request_text(record["messages"]), record["output"], record["slices"])


def banking77(directory: Path) -> World:
    """Banking77's texts, those of both files, dealt out to both sides."""
    rows = banking77_rows(directory)
    intents = {json.loads(row.answer)["intent"] for row in rows}
    return World.of({"intent": tuple(sorted(intents))}, rows)


def banking77_rows(directory: Path) -> list[Exchange]:
    """The rows of both files, in their order."""
    rows: list[Exchange] = []
    for name in ("train", "test"):
        with (directory / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows += [
                Exchange(
                    request_text([{"role": "user", "content": row["text"]}]),
                    json.dumps({"intent": row["category"]}),
                    {},
                )
                for row in csv.DictReader(stream)
            ]
    return rows
