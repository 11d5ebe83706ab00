"""Metrics over rows: shares, fields, intervals, and ragas' without a language model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets import metrics
from mlops_assets.evaluation.ragas_metrics import ragas_means
from mlops_assets_tests.small_evaluation import answer


@pytest.mark.parametrize(
    ("output", "exact"),
    [
        ('{"a":"x","b":"y"}', True),
        (' { "b" : "y",\n "a":"x" } ', True),
        ('{"a":"\\u0078","b":"y"}', True),
        ('{"a":"x"}', False),
        ('{"a":"x","b":"y","c":"z"}', False),
        ('{"a":"x","a":"x","b":"y"}', False),
        ('{"a":"x","b":"y"} thanks', False),
        ("", False),
        ("null", False),
        ('{"a":"x","b":"\\ud800"}', False),
        ("[" * 100_000, False),
    ],
)
def test_exact_match_compares_json_objects_not_text(output: str, exact: bool) -> None:
    assert metrics.is_exact('{"a":"x","b":"y"}', output) is exact


@pytest.mark.parametrize(
    "text", ["", "nope", "[]", '"x"', "1", '{"a":NaN}', '{"a":1e999}', '{"a":1,"a":2}', '{"a":']
)
def test_what_is_no_json_object_is_none(text: str) -> None:
    assert metrics.parse_object(text) is None


def test_true_and_one_are_different_answers() -> None:
    assert not metrics.is_exact('{"a":1}', '{"a":true}')


def test_empty_input_has_no_score() -> None:
    assert metrics.share([]) is None
    assert metrics.accuracy([], []) is None
    assert metrics.macro_f1([], []) is None
    assert metrics.wilson(0, 0) is None
    assert metrics.paired_difference([], []) is None
    assert metrics.percentile([], 0.5) is None
    assert ragas_means([]).keys() >= {"exact_match", "chrf_score"}
    assert set(ragas_means([]).values()) == {None}


@settings(deadline=None)  # the first example imports scikit-learn
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", None]))))
def test_macro_f1_is_that_of_scikit_learn(pairs) -> None:
    from sklearn.metrics import f1_score

    expected, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    ours = metrics.macro_f1(expected, predicted)
    if not pairs:
        assert ours is None
        return
    named = [label or "none" for label in predicted]
    theirs = f1_score(
        expected, named, labels=sorted(set(expected)), average="macro", zero_division=0
    )
    assert ours == pytest.approx(theirs)


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_is_that_of_scipy(rows: int, rate: float) -> None:
    from scipy.stats import binomtest

    hits = round(rate * rows)
    theirs = binomtest(hits, rows).proportion_ci(method="wilson")
    assert metrics.wilson(hits, rows) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_paired_difference_counts_only_what_changed() -> None:
    same = [True] * 50 + [False] * 50
    difference, (low, high) = metrics.paired_difference(same, same)
    assert difference == 0
    assert low < 0 < high
    difference, (low, high) = metrics.paired_difference([True] * 100, [False] * 100)
    assert difference == 1
    assert low > 0.9
    assert high <= 1


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (0.0, 1), (1.0, 4)])
def test_percentile_is_the_nearest_rank(share: float, value: int) -> None:
    assert metrics.percentile([4, 1, 3, 2], share) == value


def test_ragas_gives_credit_for_nearly_right_answers() -> None:
    reference = answer(queue="billing", priority="high")
    near = answer(queue="billing", priority="low")
    perfect, close, none = (ragas_means([(reference, text)]) for text in (reference, near, ""))
    assert set(perfect) == {
        "exact_match",
        "non_llm_string_similarity",
        "rouge_score",
        "bleu_score",
        "chrf_score",
    }
    assert set(perfect.values()) == {1.0}
    assert close["exact_match"] == 0
    assert all(0 < value < 1 for name, value in close.items() if name != "exact_match")
    assert set(none.values()) == {0.0}
