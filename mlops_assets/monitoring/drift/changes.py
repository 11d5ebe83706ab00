"""What changed, in words, for people who read that something drifted.

Words come from redacted texts, have letters only and stand in several texts, so that no name or
number of one customer is among them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_assets.monitoring.drift.features import NUMERIC, RATE, YES, Column, Known, words
from mlops_assets.monitoring.drift.sketches import Sketch, Sketches, size
from mlops_assets.monitoring.drift.text_columns import REQUESTS, TextDrift
from mlops_assets.privacy import redact

if TYPE_CHECKING:
    import pyarrow as pa

OF_WORDS = ("words", "characters", "unknown_words")
MOST_CLASSES, MOST_WORDS = 6, 8
LEAST_SHARE, LEAST_TEXTS = 0.01, 5  # of the sampled texts that hold a word
LEAST_CHANGE = 0.01  # in the share of a class
_PLACEHOLDER = re.compile(r"\[\w+\]")


Sides = tuple["pa.Table", "pa.Table"]
"""Seeded samples of the reference and of production."""


class _WordChange(NamedTuple):
    word: str
    before: float
    now: float
    new: bool


def find_changes(
    known: Known,
    sketches: tuple[Sketches, Sketches],
    samples: Sides,
    texts: TextDrift,
    drifted: Sequence[str],
) -> dict[str, Any]:
    """What changed in the columns that drifted; what drifted alone would tell nobody why."""
    said = bool({*OF_WORDS, REQUESTS[0]} & set(drifted))
    spoken = [sample["text"].to_pylist() for sample in samples]
    return {
        "classes": class_changes(known.columns, *sketches, drifted),
        "words": word_changes(spoken[0], spoken[1], known.vocabulary) if said else [],
        "texts": {name: found for name, found in texts.farthest.items() if name in drifted},
    }


def describe(column: Column, reference: Sketch, current: Sketch) -> str:
    """What a column was and is, as a phrase; empty where a side has no value."""
    if not size(reference) or not size(current):
        return ""
    if isinstance(reference, Counter) or isinstance(current, Counter):
        return _describe_classes(column, Counter(reference), Counter(current))
    middle, high = (
        f"{_number(current.get_quantile(rank))}, was {_number(reference.get_quantile(rank))}"
        for rank in (0.5, 0.9)
    )
    return f"median {middle}; 90th percentile {high}"


def _describe_classes(column: Column, reference: Counter[str], current: Counter[str]) -> str:
    if column.kind == RATE:
        return f"{_share(current, YES):.1%}, was {_share(reference, YES):.1%}"
    changes = _class_changes(reference, current)[:2]
    return "; ".join(f"{name} {now:.0%}, was {before:.0%}" for name, before, now in changes)


def class_changes(
    columns: Iterable[Column], reference: Sketches, current: Sketches, drifted: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The classes whose shares changed most, by column that drifted."""
    found = {}
    for column in columns:
        if column.name in drifted and column.kind != NUMERIC:
            before, now = Counter(reference[column.name]), Counter(current[column.name])
            changes = _class_changes(before, now)
            found[column.name] = [
                {"value": name, "before": was, "now": share} for name, was, share in changes
            ]
    return found


def word_changes(
    reference: Iterable[str], current: Iterable[str], vocabulary: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Words that stand in many more of the texts than they did: those that training never saw
    first, then those whose share grew most. Shares are of the texts."""
    before, was = _document_shares(reference)
    now, texts = _document_shares(current)
    found = sorted(
        (
            _WordChange(word, before[word] / max(was, 1), count / texts, word not in vocabulary)
            for word, count in now.items()
            if count >= max(LEAST_TEXTS, LEAST_SHARE * texts)
        ),
        key=lambda each: (each.before - each.now, each.word),
    )
    new = [each for each in found if each.new]
    risen = [each for each in found if not each.new and each.now > 2 * each.before]
    return [each._asdict() for each in [*new[:MOST_WORDS], *risen[:MOST_WORDS]]]


def _document_shares(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """In how many texts each word stands, and of how many texts."""
    counted: Counter[str] = Counter()
    total = 0
    for text in texts:
        clean = _PLACEHOLDER.sub(" ", redact(text)[0])
        counted.update({word for word in words(clean) if word.isalpha() and len(word) > 1})
        total += 1
    return counted, total


def _class_changes(
    reference: Counter[str], current: Counter[str]
) -> list[tuple[str, float, float]]:
    """Class, share before, share now; those that changed most first."""
    shares = [
        (redact(name)[0], _share(reference, name), _share(current, name))
        for name in reference | current
    ]
    changed = [each for each in shares if abs(each[2] - each[1]) >= LEAST_CHANGE]
    return sorted(changed, key=lambda each: (-abs(each[2] - each[1]), each[0]))[:MOST_CLASSES]


def _share(counts: Counter[str], name: str) -> float:
    return counts[name] / max(counts.total(), 1)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
