"""Scores of systems on the same rows, and baselines that learn from train alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets import metrics
from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe
from mlops_assets.evaluation import baselines, generation, scoring
from mlops_assets.refs import write_jsonl
from mlops_assets_tests.small_evaluation import (
    LABELS,
    make_rows,
)


def test_scores_by_field_and_slice() -> None:
    rows = make_rows(40, 5, "row")
    expected = scoring.references(rows, tuple(LABELS))
    outputs = [row.answer if i % 2 else "{" for i, row in enumerate(rows)]
    systems = {
        name: scoring.compare(rows, tuple(LABELS), outputs)
        for name in ("base", "tuned", "majority", "tfidf")
    }
    scored = scoring.score(rows, expected, systems)
    assert scored["exact_match"]["tuned"] == scored["valid_json"]["tuned"] == 0.5
    assert scored["exact_match"]["champion"] is None
    assert scored["fields"]["queue"]["accuracy"]["tuned"] == 0.5
    assert sum(part["count"] for part in scored["slices"]["channel"].values()) == 40
    assert scored["slices"]["style"]["plain"]["exact_match"]["base"] == 0.5
    low, high = scored["intervals"]["slices"]["style"]["plain"]["tuned"]
    assert low < 0.5 < high
    assert scored["differences"]["base"]["difference"] == 0
    assert scored["differences"]["champion"] is None


def test_rows_without_slices_have_no_slice_scores() -> None:
    rows = [replace(row, slices={}) for row in make_rows(3, 1, "row")]
    expected = scoring.references(rows, tuple(LABELS))
    assert scoring.score(rows, expected, {"tuned": expected})["slices"] == {}


def test_a_reference_that_is_no_json_cannot_be_scored() -> None:
    row = make_rows(1, 1, "row")[0]
    broken = replace(row, messages=(row.messages[0], {"role": "assistant", "content": "{"}))
    with pytest.raises(LineageError, match="row-0 is no JSON object"):
        scoring.references([broken], ("queue",))
    with pytest.raises(LineageError, match="empty"):
        scoring.references([], ("queue",))


def test_an_answer_may_hold_any_line_break(tmp_path: Path) -> None:
    store, text = ArtifactStore(tmp_path / "store"), "one\u2028two\x85three\r\nfour"
    said = [generation.Prediction("a", text, 1, 2, True), baselines.BaselineAnswers("a", text, "")]
    names = ("predictions", "baselines")
    answers, fitted = (
        store.build(
            Recipe(name, {}, {}, "1"),
            lambda to, name=name, one=one: {"rows": write_jsonl(to / f"{name}.jsonl", [one])},
        )
        for name, one in zip(names, said, strict=True)
    )
    assert generation.read_predictions(store, answers) == said[:1]
    assert baselines.read_baselines(store, fitted) == said[1:]


def test_baselines_learn_from_train_alone() -> None:
    train, test = make_rows(300, 1, "train"), make_rows(60, 2, "test")
    constant = baselines.majority_answer(train)
    assert sum(row.answer == constant for row in train) == max(
        sum(row.answer == other.answer for row in train) for other in train
    )
    answers = baselines.tfidf_answers(train, test, tuple(LABELS))
    right = [metrics.is_exact(row.answer, text) for row, text in zip(test, answers, strict=True)]
    assert metrics.share(right) > 0.95
    assert list(json.loads(answers[0])) == list(LABELS)


def test_baselines_without_train_rows_or_with_one_class() -> None:
    rows = make_rows(5, 1, "row")
    assert baselines.majority_answer([]) == ""
    assert baselines.tfidf_answers([], rows, ("queue",)) == [""] * 5
    same = [replace(row, messages=(row.messages[0], rows[0].messages[1])) for row in rows]
    assert set(baselines.tfidf_answers(same, rows, tuple(LABELS))) == {rows[0].answer}
