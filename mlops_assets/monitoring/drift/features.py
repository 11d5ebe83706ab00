"""What is compared between training and production: the columns of the drift report.

From the request: its length in words and in characters, and the share of its words that
training never saw. From its context: the slices. From the answer: the class in each field, or
its length where it is free text.

The share of unknown words must be fair to the reference, whose own texts made the
vocabulary. So a reference row is measured against the vocabulary of all *other* rows: a
word that only this row holds counts as unknown. Without that every log would seem to drift.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlops_assets.privacy import redact
from mlops_assets.refs import Message, PredictionRecord, Row

INVALID = "(invalid)"
ABSENT = "(absent)"

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Numbers:
    """A numeric feature of both sides."""

    name: str
    reference: Sequence[float]
    current: Sequence[float]
    kind: str = "numeric"


@dataclass(frozen=True)
class Classes:
    """A categorical feature of both sides."""

    name: str
    reference: Sequence[str]
    current: Sequence[str]
    kind: str = "categorical"


Column = Numbers | Classes


def make_columns(
    train: Sequence[Row],
    records: Sequence[PredictionRecord],
    labels: Mapping[str, Sequence[str]],
    sample: int,
    seed: int,
) -> list[Column]:
    """All columns; the reference is a seeded sample of at most ``sample`` rows of ``train``.

    A slice that no record carries is left out: production then does not log it.
    """
    known = document_frequency(request_text(row.messages) for row in train)
    chosen = random.Random(seed).sample(train, sample) if len(train) > sample else train
    before = [request_text(row.messages) for row in chosen]
    now = [request_text(record.messages) for record in records]
    return [
        Numbers("words", [_count(text) for text in before], [_count(text) for text in now]),
        Numbers("characters", [float(len(t)) for t in before], [float(len(t)) for t in now]),
        Numbers(
            "unknown_words",
            [unknown_share(text, known, in_vocabulary=True) for text in before],
            [unknown_share(text, known, in_vocabulary=False) for text in now],
        ),
        *_slice_columns(chosen, records),
        *(_class_columns(chosen, records, labels) if labels else [_answer_length(chosen, records)]),
    ]


def request_text(messages: Iterable[Message]) -> str:
    """What the user wrote, the turns joined by a newline."""
    return "\n".join(item.get("content", "") for item in messages if item.get("role") == "user")


def words(text: str) -> list[str]:
    """Lower-case words; digits count as words."""
    return _WORD.findall(text.lower())


def document_frequency(texts: Iterable[str]) -> Counter[str]:
    """In how many texts each word stands."""
    return Counter(word for text in texts for word in set(words(text)))


def unknown_share(text: str, known: Mapping[str, int], *, in_vocabulary: bool) -> float:
    """Share of words in no other text, 0 to 1; 0 without words.

    ``in_vocabulary`` says that ``text`` itself was counted in ``known``.
    """
    found = words(text)
    own = 1 if in_vocabulary else 0
    return sum(known.get(word, 0) <= own for word in found) / len(found) if found else 0.0


def answer_class(output: str, field: str, labels: Sequence[str]) -> str:
    """The class that an answer gives a field; ``(invalid)`` outside its vocabulary."""
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        return INVALID
    value = answer.get(field) if isinstance(answer, dict) else None
    return value if isinstance(value, str) and value in labels else INVALID


def _count(text: str) -> float:
    return float(len(words(text)))


def _slice_columns(train: Sequence[Row], records: Sequence[PredictionRecord]) -> list[Classes]:
    logged = {name for record in records for name in record.slices}
    names = sorted({name for row in train for name in row.slices} & logged)
    return [
        Classes(
            f"slice_{name}",
            [row.slices.get(name, ABSENT) for row in train],
            # A page shows them, and what production logs nobody has validated.
            [redact(record.slices.get(name, ABSENT))[0] for record in records],
        )
        for name in names
    ]


def _answer_length(train: Sequence[Row], records: Sequence[PredictionRecord]) -> Numbers:
    return Numbers(
        "answer_words",
        [_count(row.answer) for row in train],
        [_count(record.output) for record in records],
    )


def _class_columns(
    train: Sequence[Row],
    records: Sequence[PredictionRecord],
    labels: Mapping[str, Sequence[str]],
) -> list[Classes]:
    return [
        Classes(
            f"predicted_{field}",
            [answer_class(row.answer, field, allowed) for row in train],
            [answer_class(record.output, field, allowed) for record in records],
        )
        for field, allowed in labels.items()
    ]
