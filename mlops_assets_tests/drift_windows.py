"""Windows of production beside a reference, drawn again and again from many rows: how often the
drift verdict alarms where nothing has changed, and where something has.
"""

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.dataset import production, synthetic
from mlops_assets.dataset.dice import Dice
from mlops_assets.monitoring.drift.embedding import embedding_finding
from mlops_assets.monitoring.drift.features import (
    Exchange,
    Known,
    column_values,
    document_frequency,
    request_text,
    slice_classes,
)
from mlops_assets.monitoring.drift.findings import Finding, Verdict, decide
from mlops_assets.monitoring.drift.sketches import Sketches, sketch
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.text_embeddings import TextEmbeddings
from mlops_assets.monitoring.drift.verdict import compare
from mlops_assets.refs import Row
from mlops_assets.sentence_encoder import packaged_encoder

ENCODED = 6_000
TICKET_LABELS = {name: tuple(values) for name, values in synthetic.LABELS.items()}


@dataclass(frozen=True)
class World:
    """Rows to draw from."""

    labels: dict[str, tuple[str, ...]]
    train: Sequence[Exchange]
    production: Sequence[Exchange]
    """The very same list as ``train`` where rows are dealt out to both sides."""
    shifted: Sequence[Exchange] = field(default_factory=list)
    meanings: "Meanings | None" = None

    def draw(self, rows: int, seed: int) -> "Drawn":
        """A reference of so many rows, and what is left for windows beside it."""
        dice = random.Random(seed)
        chosen = dice.sample(range(len(self.train)), rows)
        taken = set(chosen) if self.train is self.production else set()
        reference = [self.train[index] for index in chosen]
        frequency = document_frequency(row.text for row in reference)
        known = Known(frequency, self.labels, slice_classes(row.slices for row in reference))
        values = column_values(reference, known, in_vocabulary=True)
        left = [row for index, row in enumerate(self.production) if index not in taken]
        reference_sketches = sketch(known.columns, values)
        return Drawn(known, reference_sketches, left, self.shifted, dice, self.meanings)

    def with_meanings(self, store: ArtifactStore) -> "World":
        """The same with the embeddings of some of the texts, by the installed encoder.

        Raises LineageError where none is installed.
        """
        encoder = TextEmbeddings(store, packaged_encoder())
        calm = encoder.of([row.text for row in self.production[:ENCODED]])
        texts = [row.text for row in self.shifted[:ENCODED]]
        return replace(self, meanings=Meanings(calm, encoder.of(texts) if texts else calm[:0]))


@dataclass(frozen=True)
class Meanings:
    """Embeddings of texts, as (texts, dimensions), to deal out to both sides.

    Not of the very rows whose other columns are compared: there would be too many to encode.
    """

    calm: np.ndarray
    shifted: np.ndarray

    def finding(self, records: int, share: float, spec: DriftSpec, dice: random.Random) -> Finding:
        """What the report would find in a window of so many records."""
        size = min(records, spec.embedding_rows)
        moved = round(share * size)
        dealt = dice.sample(range(len(self.calm)), spec.embedding_rows + size - moved)
        reference, calm = self.calm[dealt[: spec.embedding_rows]], dealt[spec.embedding_rows :]
        shifted = dice.sample(range(len(self.shifted)), moved)
        current = np.concatenate([self.calm[calm], self.shifted[shifted]])
        seed = dice.randrange(2**31)
        return embedding_finding("request_embedding", reference, current, seed, spec.min_effect)


@dataclass(frozen=True)
class Drawn:
    """A reference, and rows to draw windows from."""

    known: Known
    reference: Sketches
    production: Sequence[Exchange]
    shifted: Sequence[Exchange]
    dice: random.Random
    meanings: Meanings | None

    def verdict(self, records: int, spec: DriftSpec, share: float = 0.0) -> Verdict:
        """What the report would say of a window, in which ``share`` of the records are shifted."""
        moved = round(share * records)
        window = self.dice.sample(self.production, records - moved)
        window += self.dice.sample(self.shifted, moved)
        columns = self.known.columns
        current = sketch(columns, column_values(window, self.known))
        found = compare(columns, self.reference, current, spec)
        if self.meanings:
            found.append(self.meanings.finding(records, share, spec, self.dice))
        return decide(found, spec.alpha)


def tickets(train: int, records: int, shifted: int = 0) -> World:
    """The shipped generator: its training tickets, and what a release that errs in one of ten
    answered; ``shifted`` is the shipped shifted mix."""
    rows = [
        Exchange(request_text(row.messages), row.answer, row.slices) for row in ticket_rows(train)
    ]
    answered = [list(logged(name, n)) for name, n in (("unshifted", records), ("shifted", shifted))]
    return World(TICKET_LABELS, rows, *answered)


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
    intents = {json.loads(row.answer)["intent"] for row in rows}
    return World({"intent": tuple(sorted(intents))}, rows, rows)
