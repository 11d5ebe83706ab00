"""Examples for the report's page: questions with the answers of two systems side by side."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_assets import metrics
from mlops_assets.evaluation.comparison import Comparison, Pair
from mlops_assets.evaluation.excerpts import excerpt
from mlops_assets.evaluation.records import TEST, Record
from mlops_assets.evaluation.scoring import Scored
from mlops_assets.refs import Row

BETTER, WORSE, WRONG = "better", "worse", "wrong"  # the last: with both
LISTS = (BETTER, WORSE, WRONG)


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as the page shows it: field by field, or as it is where it is no JSON."""

    text: str
    fields: tuple[tuple[str, str, bool], ...]
    """Name, value and whether it is as it should be."""


@dataclass(frozen=True)
class Example:
    """One question as the page shows it."""

    id: str
    text: str
    reference: ShownAnswer
    tuned: ShownAnswer
    other: ShownAnswer


def split_examples(
    rows: Sequence[Row], tuned: Scored, other: Scored, settings: Mapping[str, Any]
) -> dict[str, list[Example]]:
    """Seeded samples of test rows: better than the rival, worse than it, wrong with both."""
    outcomes = list(zip(tuned.correct, other.correct, strict=True))
    wanted = {BETTER: (True, False), WORSE: (False, True), WRONG: (False, False)}
    drawn = {}
    for name, outcome in wanted.items():
        found = [i for i, both in enumerate(outcomes) if both == outcome]
        chosen = _sample(found, settings)
        drawn[name] = [_example(rows[i], tuned.outputs[i], other.outputs[i]) for i in chosen]
    return drawn


def suite_examples(
    compared: Sequence[Comparison], settings: Mapping[str, Any]
) -> dict[str, dict[str, list[Example]]]:
    """The same lists for each suite that has any, by its leading metric."""
    found: dict[str, dict[str, list[Example]]] = {}
    for one in compared:
        if one.suite == TEST:
            continue
        lists = {name: [pair for pair in one.pairs if _list_of(pair) == name] for name in LISTS}
        if any(lists.values()):
            found[one.suite] = {
                name: [_paired_example(pair) for pair in _sample(pairs, settings)]
                for name, pairs in lists.items()
            }
    return found


def _list_of(pair: Pair) -> str:
    """One of ``LISTS``, or nothing: as good as can be with both, or without a score."""
    leading = _leading(pair)
    if (scores := pair.scores(leading)) is None:
        return ""
    if rise := pair.changes.get(leading):  # as the counts beside it have it
        return BETTER if rise > 0 else WORSE
    return WRONG if scores[1] < 1 else ""


def _leading(pair: Pair) -> str:
    return next(iter(pair.after.scores), "")


def _sample(found: Sequence[Any], settings: Mapping[str, Any]) -> list[Any]:
    count = min(settings["examples"], len(found))
    return random.Random(settings["seed"]).sample(list(found), count)


def _example(row: Row, tuned: str, other: str) -> Example:
    asked = str(row.prompt[-1]["content"]) if row.prompt else ""
    return _compared(row.id, asked, row.answer, tuned, other)


def _compared(name: str, asked: str, expected: str, tuned: str, other: str) -> Example:
    show = show_answer if metrics.parse_object(expected) else _text
    reference, ours, theirs = (show(expected, part) for part in (expected, tuned, other))
    return Example(name, excerpt(asked), reference, ours, theirs)


def _paired_example(pair: Pair) -> Example:
    before, after, leading = pair.before, pair.after, _leading(pair)
    if after.reference:
        return _compared(after.item, after.input, after.reference, after.output, before.output)
    anything = ShownAnswer("", (("", f"anything with {leading.replace('_', ' ')}", True),))
    ours, theirs = _scored(after, leading), _scored(before, leading)
    return Example(after.item, excerpt(after.input), anything, ours, theirs)


def _scored(record: Record, metric: str) -> ShownAnswer:
    shown = excerpt(record.output.strip()) or "(nothing)"
    return ShownAnswer(shown, (("answer", shown, record.scores.get(metric) == 1),))


def show_answer(reference: str, output: str) -> ShownAnswer:
    """A JSON answer field by field, each one marked as right or wrong."""
    expected, found = metrics.parse_object(reference), metrics.parse_object(output)
    if not expected or not found:
        return ShownAnswer(excerpt(output), ())
    shown = dict.fromkeys(expected, "(missing)") | dict(found)
    return ShownAnswer(
        excerpt(output),
        tuple(
            (name, excerpt(str(value)), name in found and value == expected.get(name))
            for name, value in shown.items()
        ),
    )


def _text(reference: str, output: str) -> ShownAnswer:
    shown = excerpt(output.strip()) or "(nothing)"
    return ShownAnswer(shown, (("answer", shown, metrics.is_same_text(reference, output)),))
