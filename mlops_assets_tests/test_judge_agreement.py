"""Cohen's kappa, its interval, and the files that it is measured on."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.judge_agreement import agree, read_calibration
from mlops_assets.evaluation.judge_questions import Rubric, check_task, read_rubric

RUBRIC = Rubric(name="r", task="Judge.", levels={1: "bad", 2: "fair", 3: "good"})
LINE = {
    "id": "a",
    "messages": [{"role": "user", "content": "Q"}],
    "reference": "R",
    "answer": "A",
    "human": 3,
    "by": "Kim",
}


@settings(deadline=None)  # the first example imports scikit-learn
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=2, max_size=40))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    import numpy as np
    from sklearn.metrics import cohen_kappa_score

    people, judge = ([pair[i] for pair in pairs] for i in (0, 1))
    found = agree(people, judge, 3)
    if len({*people, *judge}) == 1:
        assert found.kappa is None
        return
    with np.errstate(invalid="ignore"):
        assert found.kappa == pytest.approx(cohen_kappa_score(people, judge, labels=[1, 2, 3]))
    low, high = found.interval
    assert low - 1e-9 <= found.kappa <= high + 1e-9


@pytest.mark.parametrize(
    ("table", "kappa", "interval"),
    [
        # With the normal distribution of Cohen (1960) the interval is 0.384 to 0.599.
        ([[88, 14, 18], [10, 40, 10], [2, 6, 12]], 0.4915, (0.3783, 0.5920)),
        # Full agreement of 12 leaves room for doubt, which +-1.96 standard errors would not.
        ([[4, 0, 0], [0, 4, 0], [0, 0, 4]], 1.0, (0.636, 1.0)),
        ([[0, 5], [5, 0]], -1.0, (-1.0, -0.445)),
    ],
)
def test_known_tables(table, kappa, interval) -> None:
    cells = [
        (a, b) for a, row in enumerate(table, 1) for b, n in enumerate(row, 1) for _ in range(n)
    ]
    found = agree([a for a, _ in cells], [b for _, b in cells], len(table))
    assert found.kappa == pytest.approx(kappa, abs=5e-4)
    assert found.interval == pytest.approx(interval, abs=5e-4)
    assert [list(row) for row in found.table] == table


def test_the_lower_bound_holds_where_judges_are_as_good_as_they_say() -> None:
    """Of 1,000 calibration sets of 40 answers, the true kappa lies below the bound in few."""
    dice = random.Random(0)
    for accuracy in (0.7, 0.85, 0.95):
        truth = accuracy - (1 - accuracy) / 2  # three levels, equally often, errors spread evenly
        too_high = 0
        for _ in range(1000):
            people = [dice.randint(1, 3) for _ in range(40)]
            judge = [
                level
                if dice.random() < accuracy
                else dice.choice([x for x in (1, 2, 3) if x != level])
                for level in people
            ]
            found = agree(people, judge, 3)
            too_high += found.interval[0] > truth
        assert too_high <= 40, accuracy  # 2.5% are meant; 4% allow for chance


def test_nothing_to_compare_has_no_kappa() -> None:
    assert agree([], [], 3).kappa is None
    assert agree([2, 2], [2, 2], 3).kappa is None
    assert agree([1, 2], [3, 3], 3).kappa == 0


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "holds no line"),
        (["{"], "Line 1 of the calibration set"),
        ([json.dumps(LINE), json.dumps(LINE | {"id": "b", "extra": 1})], "Line 2 of the"),
        ([json.dumps(LINE | {"human": "3"})], "Line 1 of the"),
        ([json.dumps(LINE | {"human": 4})], "scores a outside the rubric's levels 1 to 3"),
        ([json.dumps(LINE), json.dumps(LINE)], "has an id twice"),
        ([json.dumps({**LINE, "messages": []})], "Line 1 of the"),
    ],
)
def test_a_calibration_set_that_cannot_be_used(tmp_path: Path, lines, problem) -> None:
    path = tmp_path / "calibration.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(LineageError, match=problem):
        read_calibration(path, RUBRIC)


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    answer = "one\u2028two\x85three"  # line breaks to Python, text in JSON
    (tmp_path / "c.jsonl").write_text(json.dumps(LINE | {"answer": answer}, ensure_ascii=False))
    assert [one.answer for one in read_calibration(tmp_path / "c.jsonl", RUBRIC)] == [answer]


def test_a_calibration_set_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="cannot be read"):
        read_calibration(tmp_path / "none.jsonl", RUBRIC)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a", "cannot be used"),
        ("name: [", "cannot be used"),
        ("name: n\ntask: t\nlevels: {1: a}", "at least 2"),
        ("name: n\ntask: t\nlevels: {1: a, 3: b}", "must be numbered 1, 2, 3"),
        ("name: n\ntask: t\nlevels: {1: a, 2: b}\nweights: 1", "Extra inputs"),
        ("name: !!python/name:os.system x\ntask: t\nlevels: {1: a, 2: b}", "cannot be used"),
    ],
)
def test_a_rubric_that_cannot_be_used(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rubric.yaml"
    path.write_text(text)
    with pytest.raises(LineageError, match=problem):
        read_rubric(path)


@pytest.mark.parametrize(
    ("wanted", "given", "fits"),
    [
        (None, ["intent"], True),
        (["intent"], ["intent"], True),
        (["b", "a"], ["a", "b"], True),
        ([], [], True),
        (["queue"], ["intent"], False),
        ([], ["intent"], False),
        (["intent"], [], False),
    ],
)
def test_a_rubric_serves_its_own_task_alone(wanted, given, fits: bool) -> None:
    rubric = RUBRIC.model_copy(update={"fields": wanted})
    if fits:
        check_task(rubric, given)
    else:
        with pytest.raises(LineageError, match="is for other answers"):
            check_task(rubric, given)
