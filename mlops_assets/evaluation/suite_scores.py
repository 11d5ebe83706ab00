"""Puts the suites to the models, and says how well each did."""

import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlops_assets import metrics
from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation import scoring
from mlops_assets.evaluation.generation import Subject, predict, read_predictions
from mlops_assets.evaluation.item_metrics import METRICS
from mlops_assets.evaluation.records import Answer, Record, make_records
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.evaluation.suites import Suite
from mlops_assets.refs import Row, read_rows, write_jsonl

logger = logging.getLogger(__name__)

ROWS = "rows.jsonl"


def answer_suites(
    store: ArtifactStore,
    suites: Sequence[Suite],
    subjects: Sequence[Subject],
    spec: EvaluationSpec,
) -> list[Record]:
    """What every subject answers to every item, suite by suite, scored.

    The suites' items are answered together: a model is loaded once for all of them, and
    batches of one length are full.
    """
    asked = [suite for suite in suites if suite.items]
    if not asked:
        return []
    file = store.path(_all_rows(store, asked)) / ROWS
    rows = list(read_rows(file))
    brief = spec.model_copy(update={"latency_requests": 1})  # the test split's rows are timed
    answers = {}
    for subject in subjects:
        found = read_predictions(store, predict(store, subject, file, rows, brief))
        answers[subject.name] = [Answer(one.text, one.finished, one.tokens) for one in found]
    records: list[Record] = []
    start = 0
    for suite in asked:
        end = start + len(suite.items)
        part = {name: found[start:end] for name, found in answers.items()}
        records += score_suite(suite, part)
        start = end
    return records


def score_suite(suite: Suite, answers: Mapping[str, Sequence[Answer]]) -> list[Record]:
    """A record for each item and system; a metric that cannot be told is None."""
    scores = {
        system: [
            {name: METRICS[name](item, answer.text) for name in suite.spec.metrics}
            for item, answer in zip(suite.items, found, strict=True)
        ]
        for system, found in answers.items()
    }
    return make_records(suite.name, suite.rows, answers, scores)


def count_learnt(suites: Sequence[Suite], train: Path) -> dict[str, int]:
    """How many items of each suite ask what stands in the train split, case and space aside."""
    asked = {suite.name: [plain(row) for row in suite.rows] for suite in suites}
    learnt = find_learnt({text for texts in asked.values() for text in texts}, train)
    return {name: sum(text in learnt for text in texts) for name, texts in asked.items()}


def find_learnt(texts: AbstractSet[str], train: Path) -> set[str]:
    """Which of these texts, as ``plain`` gives them, stand in the train split."""
    rows = read_rows(train) if texts else iter(())
    return {text for row in rows if (text := plain(row)) in texts}


def plain(row: Row) -> str:
    """What the row asks last, case and space aside."""
    return " ".join(str(row.prompt[-1]["content"]).casefold().split()) if row.prompt else ""


def summarise_suites(
    suites: Sequence[Suite], records: Sequence[Record], learnt: Mapping[str, int]
) -> dict[str, Any]:
    """What the report says of each suite: means over the items that have a score.

    ``metrics`` holds the mean of each system, ``scored`` how many of the candidate's answers
    have a score, ``in_training`` how many items the model has been shown with an answer. A suite
    that does not apply has no items, no metrics and a ``reason``.
    """
    by_suite: dict[str, list[Record]] = {suite.name: [] for suite in suites}
    for record in records:
        if record.suite in by_suite:
            by_suite[record.suite].append(record)
    return {
        suite.name: _summary(suite, by_suite[suite.name])
        | {"in_training": learnt.get(suite.name, 0)}
        for suite in suites
    }


def _summary(suite: Suite, records: Sequence[Record]) -> dict[str, Any]:
    names = () if suite.unfit else suite.spec.metrics
    return {
        "kind": suite.spec.kind,
        "about": suite.spec.about,
        "applies": not suite.unfit,
        "reason": suite.unfit or None,
        "items": len(suite.items),
        "digest": suite.digest,
        "metrics": {name: _means(records, name) for name in names},
        "scored": {name: _scored(records, name) for name in names},
        "slices": _slices(records, names),
    }


def _means(records: Sequence[Record], metric: str) -> dict[str, float | None]:
    """By system; None for one that was not run, and where no item has a score."""
    return {
        system: metrics.mean([one.scores[metric] for one in records if one.system == system])
        for system in scoring.MODELS
    }


def _scored(records: Sequence[Record], metric: str) -> int:
    ours = (one for one in records if one.system == "tuned")
    return sum(one.scores[metric] is not None for one in ours)


def _slices(records: Sequence[Record], names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        for dimension, value in record.slices.items():
            found.setdefault(dimension, {}).setdefault(value, []).append(record)
    return {
        dimension: {
            value: {
                "count": sum(one.system == "tuned" for one in chosen),
                "metrics": {name: _means(chosen, name) for name in names},
            }
            for value, chosen in sorted(values.items())
        }
        for dimension, values in sorted(found.items())
    }


def _all_rows(store: ArtifactStore, suites: Sequence[Suite]) -> Artifact:
    inputs = {suite.name: suite.digest for suite in suites}

    def produce(directory: Path) -> dict[str, int]:
        return {"rows": write_jsonl(directory / ROWS, _named(suites))}

    return store.build(Recipe("suite_rows", inputs, {}, code_digest(__name__)), produce)


def _named(suites: Sequence[Suite]) -> list[Row]:
    return [replace(row, id=f"{suite.name}/{row.id}") for suite in suites for row in suite.rows]
