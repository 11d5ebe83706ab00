"""Metrics on answers, JSON objects or free text: each one a small pure function.

A share of nothing is ``None``, never 0 and never NaN: no verdict follows from no rows.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from mlops_assets.artifacts import canonical_json

Z95 = 1.959963984540054
"""The 97.5% quantile of the normal distribution, for two-sided 95% intervals."""

Interval = tuple[float, float]


def parse_object(text: str) -> Mapping[str, Any] | None:
    """The JSON object that ``text`` is, or None.

    Duplicate keys, NaN and infinities count as invalid: readers disagree on what they mean.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        canonical_json(value)  # lone surrogates and overflowing floats cannot be written back
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_exact(reference: str, output: str) -> bool:
    """Whether both are JSON objects and equal, whatever their spaces and key order."""
    expected, got = parse_object(reference), parse_object(output)
    if expected is None or got is None:
        return False
    # Compared as text, because Python holds True, 1 and 1.0 for equal.
    return canonical_json(expected) == canonical_json(got)


def is_same_text(reference: str, output: str) -> bool:
    """Whether both are the same text, but for the space around it."""
    return bool(reference.strip()) and reference.strip() == output.strip()


def share(hits: Sequence[bool]) -> float | None:
    """The share of hits; None without any row."""
    return sum(hits) / len(hits) if hits else None


def mean(scores: Iterable[float | None]) -> float | None:
    """The mean of the scores that there are; None where there is none."""
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None


def field_value(text: str, field: str) -> str | None:
    """The string under ``field`` of an answer, or None where there is none."""
    value = (parse_object(text) or {}).get(field)
    return value if isinstance(value, str) else None


def accuracy(expected: Sequence[str | None], predicted: Sequence[str | None]) -> float | None:
    """The share of rows whose label is right; a missing prediction is wrong."""
    return share(_matches(expected, predicted))


def macro_f1(expected: Sequence[str | None], predicted: Sequence[str | None]) -> float | None:
    """The mean F1 over the labels that the references hold, each label counting the same.

    A label that only a model came up with has no recall to measure: it lowers the F1 of the
    labels it was given instead of, and is no class of its own.
    """
    support, answered = Counter(expected), Counter(predicted)
    pairs = zip(expected, predicted, strict=True)
    right = Counter(label for label, guess in pairs if label == guess)
    scores = [2 * right[label] / (count + answered[label]) for label, count in support.items()]
    return math.fsum(scores) / len(scores) if scores else None


def wilson(hits: int, rows: int) -> Interval | None:
    """Wilson's 95% score interval of a share (Wilson 1927); None without any row."""
    if rows == 0:
        return None
    rate, z2 = hits / rows, Z95**2
    centre = rate + z2 / (2 * rows)
    margin = Z95 * math.sqrt(rate * (1 - rate) / rows + z2 / (4 * rows**2))
    scale = 1 + z2 / rows
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float]
) -> tuple[float, Interval] | None:
    """The mean of our scores minus that of theirs on the same rows, with a 95% interval.

    For hits and misses the interval is Wald's for paired shares with half a row added to each
    cell (Agresti and Min 2005). Written over the rows' differences the formula holds for any
    score: what it adds is a pair gained and a pair lost, half of each, by 1 or by as much as the
    largest difference. None without any row.
    """
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    rows = len(differences)
    if rows == 0:
        return None
    total, largest = math.fsum(differences), max(1.0, max(map(abs, differences)))
    spread = math.fsum(one * one for one in differences) + largest**2 - total**2 / (rows + 2)
    centre, margin = total / (rows + 2), Z95 * math.sqrt(spread) / (rows + 2)
    return total / rows, (max(-largest, centre - margin), min(largest, centre + margin))


def confusions(
    expected: Sequence[str | None], predicted: Sequence[str | None]
) -> Counter[tuple[str | None, str | None]]:
    """How often each label was answered with each other one; right answers included."""
    return Counter(zip(expected, predicted, strict=True))


def percentile(values: Iterable[float], share: float) -> float | None:
    """The nearest-rank percentile at ``share`` (0 to 1); None without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _matches(expected: Sequence[str | None], predicted: Sequence[str | None]) -> list[bool]:
    return [label == guess for label, guess in zip(expected, predicted, strict=True)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
