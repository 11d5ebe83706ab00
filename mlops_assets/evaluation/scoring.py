"""Scores of every system on the same rows, as plain JSON values.

A system that was not run (no champion yet, no baseline for free text) has ``None`` for each
score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_assets import metrics
from mlops_assets.artifacts import LineageError
from mlops_assets.refs import Row

SYSTEMS = ("base", "tuned", "champion", "majority", "tfidf")
MODELS = ("base", "tuned", "champion")
"""The systems that generate text; the others cannot fail to write JSON."""


@dataclass(frozen=True)
class Scored:
    """One system's answers to the rows, compared with the references."""

    outputs: Sequence[str]
    correct: Sequence[bool]
    values: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """The predicted label of each row, by field; None where the answer has none."""


def compare(rows: Sequence[Row], fields: Sequence[str], outputs: Sequence[str]) -> Scored:
    """Compare a system's answers with the references of ``rows``, in their order.

    Without ``fields`` answers are free text.
    """
    pairs = list(zip(rows, outputs, strict=True))
    equal = metrics.is_exact if fields else metrics.is_same_text
    return Scored(
        outputs,
        [equal(row.answer, output) for row, output in pairs],
        {name: [metrics.field_value(output, name) for output in outputs] for name in fields},
    )


def references(rows: Sequence[Row], fields: Sequence[str]) -> Scored:
    """The references scored as a system, which shows that each can be parsed.

    Raises LineageError for a row whose reference cannot: no answer could match it.
    """
    perfect = compare(rows, fields, [row.answer for row in rows])
    bad = [row.id for row, right in zip(rows, perfect.correct, strict=True) if not right]
    if bad or not rows:
        what = "is no JSON object" if fields else "is empty"
        problem = f"the answer of row {bad[0]} {what}" if bad else "it is empty"
        raise LineageError(
            f"The test split cannot be scored: {problem}.",
            "Correct the data and materialise `validated_dataset` and `dataset_splits` again.",
        )
    return perfect


def score(rows: Sequence[Row], expected: Scored, systems: Mapping[str, Scored]) -> dict[str, Any]:
    """Every score that compares answers with references, by the keys of ``report.json``.

    ``valid_json`` is there only where answers have fields: free text is not meant to be JSON.
    """
    slices = _slice_rows(rows)
    found = {"valid_json": _valid_json(systems)} if expected.values else {}
    return found | {
        "items": len(rows),
        "exact_match": _each(systems, lambda one: metrics.share(one.correct)),
        "fields": {name: _field_scores(expected, systems, name) for name in expected.values},
        "slices": {
            dimension: {value: _slice_scores(systems, chosen) for value, chosen in values.items()}
            for dimension, values in slices.items()
        },
        "intervals": {
            "exact_match": _each(systems, lambda one: _interval(one, range(len(rows)))),
            "slices": {
                dimension: {
                    value: _each(systems, lambda one, rows=chosen: _interval(one, rows))
                    for value, chosen in values.items()
                }
                for dimension, values in slices.items()
            },
        },
        "differences": _differences(systems),
    }


def row_scores(expected: Scored, one: Scored) -> list[dict[str, float | None]]:
    """What each answer is worth, by metric; free text has neither JSON nor fields."""
    found: list[dict[str, float | None]] = []
    for i, correct in enumerate(one.correct):
        scores: dict[str, float | None] = {"exact_match": float(correct)}
        if expected.values:
            scores["valid_json"] = float(metrics.parse_object(one.outputs[i]) is not None)
        for name, truth in expected.values.items():
            scores[f"accuracy/{name}"] = float(truth[i] == one.values[name][i])
        found.append(scores)
    return found


def top_confusions(
    expected: Sequence[str | None], predicted: Sequence[str | None], most: int
) -> list[tuple[str, str | None, int]]:
    """The wrong labels given most often: (reference, prediction or None, rows)."""
    counted = metrics.confusions(expected, predicted)
    wrong = [(str(a), b, count) for (a, b), count in counted.items() if a != b]
    return sorted(wrong, key=lambda item: (-item[2], item[0], str(item[1])))[:most]


def _each(systems: Mapping[str, Scored], measure: Any) -> dict[str, Any]:
    return {name: measure(systems[name]) if name in systems else None for name in SYSTEMS}


def _valid_json(systems: Mapping[str, Scored]) -> dict[str, float | None]:
    return {
        name: metrics.share([metrics.parse_object(text) is not None for text in one.outputs])
        if (one := systems.get(name))
        else None
        for name in MODELS
    }


def _field_scores(expected: Scored, systems: Mapping[str, Scored], name: str) -> dict[str, Any]:
    truth = expected.values[name]
    return {
        "accuracy": _each(systems, lambda one: metrics.accuracy(truth, one.values[name])),
        "macro_f1": _each(systems, lambda one: metrics.macro_f1(truth, one.values[name])),
    }


def _slice_rows(rows: Sequence[Row]) -> dict[str, dict[str, list[int]]]:
    """The rows' positions, by slicing dimension and value, both in alphabetical order."""
    found: dict[str, dict[str, list[int]]] = {}
    for i, row in enumerate(rows):
        for dimension, value in row.slices.items():
            found.setdefault(dimension, {}).setdefault(value, []).append(i)
    return {name: dict(sorted(values.items())) for name, values in sorted(found.items())}


def _slice_scores(systems: Mapping[str, Scored], chosen: Sequence[int]) -> dict[str, Any]:
    return {
        "count": len(chosen),
        "exact_match": _each(systems, lambda one: metrics.share([one.correct[i] for i in chosen])),
    }


def _interval(one: Scored, chosen: Sequence[int]) -> list[float] | None:
    bounds = metrics.wilson(sum(one.correct[i] for i in chosen), len(chosen))
    return list(bounds) if bounds else None


def _differences(systems: Mapping[str, Scored]) -> dict[str, Any]:
    """Exact match of the tuned model minus each other system's, with 95% intervals."""
    tuned = systems["tuned"].correct
    found: dict[str, Any] = {}
    for name in SYSTEMS:
        if name == "tuned":
            continue
        pair = metrics.paired_difference(tuned, systems[name].correct) if name in systems else None
        found[name] = {"difference": pair[0], "interval": list(pair[1])} if pair else None
    return found
