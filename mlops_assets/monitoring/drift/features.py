"""What is compared between production and training: the columns of the drift report.

Of the request: its length in words and in characters, the share of its words that training
never saw, and the slices that it came with. Of the answer: the class in each field, or its
length where it is free text, and how many are invalid, empty, or refuse.

The share of unknown words must be fair to the reference, whose own texts made the
vocabulary. So a reference row is measured against the vocabulary of all *other* rows: a
word that only this row holds counts as unknown. Without that every log would seem to drift.

Of a class that the reference does not have only the number is kept. The distance is the same as
if each were counted by itself, what is kept has a bound, and what production logs, which nobody
has validated, stands nowhere.
"""

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlops_assets.monitoring.drift.findings import DATA, PREDICTION
from mlops_assets.privacy import DEFAULT_POLICY, Detector, redact
from mlops_assets.refs import Message
from mlops_assets.refusals import is_refusal

INVALID, ABSENT, OTHER = "(invalid)", "(absent)", "(other)"
YES, NO = "yes", "no"
NUMERIC, CATEGORICAL, RATE = "numeric", "categorical", "rate"
MOST_CLASSES = 500
"""Classes of a slice that are told apart, the reference's most frequent; the rest are other."""

_WORD = re.compile(r"\w+")

Values = Mapping[str, Sequence[Any]]
"""A value for each row, by column: numbers, or the names of classes."""


class Column(NamedTuple):
    """What is compared, whichever rows it is taken of."""

    name: str
    layer: str
    kind: str
    """``numeric``, ``categorical`` or ``rate``: a class of two, of which the share counts."""


class Exchange(NamedTuple):
    """A request and its answer, as columns see them."""

    text: str
    """As ``request_text`` makes it."""
    answer: str
    slices: Mapping[str, str]


@dataclass(frozen=True)
class Known:
    """What the reference knows. What else production holds is unknown, other or invalid."""

    vocabulary: Mapping[str, int]
    """In how many texts of the train split each word stands."""
    labels: Mapping[str, Sequence[str]]
    """The classes of each field of the answer; empty where it is free text."""
    slices: Mapping[str, Sequence[str]]
    """The classes of each slice."""

    @property
    def columns(self) -> list[Column]:
        """All columns, in the order in which they are shown."""
        request = [Column(name, DATA, NUMERIC) for name in ("words", "characters", "unknown_words")]
        slices = [Column(f"slice_{name}", DATA, CATEGORICAL) for name in self.slices]
        fields = [Column(f"predicted_{name}", PREDICTION, CATEGORICAL) for name in self.labels]
        rates = ["invalid_answers"] if self.labels else []
        return [
            *request,
            *slices,
            *(fields or [Column("answer_words", PREDICTION, NUMERIC)]),
            *(Column(name, PREDICTION, RATE) for name in [*rates, "empty_answers", "refusals"]),
        ]


def column_values(
    exchanges: Sequence[Exchange], known: Known, *, in_vocabulary: bool = False
) -> Values:
    """Every column of ``known``, a value for each exchange, in their order.

    ``in_vocabulary`` says that these very texts were counted in the vocabulary.
    """
    answers = _OfAnswers(known.labels)
    slices = {name: frozenset(classes) for name, classes in known.slices.items()}
    rows = [
        [
            *_of_request(exchange.text, known.vocabulary, 1 if in_vocabulary else 0),
            *_of_slices(exchange.slices, slices),
            *answers.values(exchange.answer),
        ]
        for exchange in exchanges
    ]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(known.columns)
    return {column.name: values for column, values in zip(known.columns, columns, strict=True)}


def request_text(messages: Iterable[Message]) -> str:
    """What the user wrote, the turns joined by a newline, redacted.

    On both sides alike: the train split may hold placeholders where production holds addresses,
    and that is no drift.
    """
    turns = (item.get("content") or "" for item in messages if item.get("role") == "user")
    return redact("\n".join(turns))[0]


def detector_version() -> str:
    """What decides on what is redacted."""
    return Detector(DEFAULT_POLICY).version


def words(text: str) -> list[str]:
    """Lower-case words; digits count as words."""
    return _WORD.findall(text.lower())


def document_frequency(texts: Iterable[str]) -> Counter[str]:
    """In how many texts each word stands."""
    return Counter(word for text in texts for word in set(words(text)))


def slice_classes(slices: Iterable[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """The classes of each slice, at most ``MOST_CLASSES``; a row without one counts as absent."""
    counts: dict[str, Counter[str]] = {}
    for row in slices:
        for name, value in row.items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        name: tuple(value for value, _ in counts[name].most_common(MOST_CLASSES))
        for name in sorted(counts)
    }


def unknown_share(found: Sequence[str], vocabulary: Mapping[str, int], own: int) -> float:
    """Share of these words that stand in no other text, 0 to 1; 0 without words.

    ``own`` is 1 where the words' own text was counted in the vocabulary, else 0.
    """
    return sum(vocabulary.get(word, 0) <= own for word in found) / len(found) if found else 0.0


def answer_class(output: str, field: str, labels: Sequence[str]) -> str:
    """The class that an answer gives a field; ``(invalid)`` outside its vocabulary."""
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        return INVALID
    value = answer.get(field) if isinstance(answer, dict) else None
    return value if isinstance(value, str) and value in labels else INVALID


def _of_request(text: str, vocabulary: Mapping[str, int], own: int) -> list[float]:
    found = words(text)
    return [float(len(found)), float(len(text)), unknown_share(found, vocabulary, own)]


def _of_slices(slices: Mapping[str, str], known: Mapping[str, Container[str]]) -> list[str]:
    given = [(slices.get(name), classes) for name, classes in known.items()]
    return [
        ABSENT if value is None else value if value in classes else OTHER
        for value, classes in given
    ]


class _OfAnswers:
    """The columns of answers, of which classifiers give the same again and again."""

    def __init__(self, labels: Mapping[str, Sequence[str]]) -> None:
        self._labels = labels
        self._seen: dict[str, list[float | str]] = {}

    def values(self, answer: str) -> list[float | str]:
        if not self._labels:
            return self._values(answer)
        if answer not in self._seen:
            self._seen[answer] = self._values(answer)
        return self._seen[answer]

    def _values(self, answer: str) -> list[float | str]:
        rates = [not answer.strip(), is_refusal(answer)]
        fields = [answer_class(answer, name, given) for name, given in self._labels.items()]
        if fields:
            rates.insert(0, INVALID in fields)
        measured: list[float | str] = [*fields] if fields else [float(len(words(answer)))]
        return [*measured, *(YES if rate else NO for rate in rates)]
