"""What got better and what got worse: pairs of items, differences, the order of examples."""

import math

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.changes import summarise_changes
from mlops_assets.evaluation.comparison import Comparison, compare_records
from mlops_assets.evaluation.records import Record
from mlops_assets.metrics import paired_difference


def record(item: str, score: float | None = 1.0, **values: object) -> Record:
    scores = values.pop("scores", {"exact_match": score})
    fields = {"suite": "test", "input_hash": f"hash of {item}", "system": "tuned", "output": ""}
    return Record(**{**fields, "item": item, "scores": scores, **values})


def compare(before: list[Record], after: list[Record]) -> Comparison:
    (one,) = compare_records(before, after)
    return one


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ([0.0], [1.0], (1, 0, 0, 0)),
        ([1.0], [0.0], (0, 1, 0, 0)),
        ([0.5], [0.5 + 1e-9], (0, 0, 1, 0)),  # the rounding of floats
        ([None], [1.0], (0, 0, 0, 1)),
        ([1.0], [None], (0, 0, 0, 1)),
        ([1.0], [math.nan], (0, 0, 0, 1)),
        ([0.0, 1.0, 1.0, None], [1.0, 0.0, 1.0, None], (1, 1, 1, 1)),
    ],
)
def test_pairs_are_better_worse_the_same_or_unscored(
    before: list[float | None], after: list[float | None], counts: tuple[int, ...]
) -> None:
    sides = [[record(str(i), score) for i, score in enumerate(side)] for side in (before, after)]
    found = compare(*sides).metrics["exact_match"]
    assert (found.better, found.worse, found.same, found.unscored) == counts
    scored = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b == b]
    scored = [(a, b) for a, b in scored if b is not None]
    assert found.items == len(scored)
    if not scored:
        assert (found.before, found.difference, found.interval) == (None, None, None)
    else:
        assert found.difference == pytest.approx(sum(b - a for a, b in scored) / len(scored))


def test_a_metric_that_one_side_lacks_is_unscored_not_zero() -> None:
    one = compare([record("a", scores={"old": 1.0})], [record("a", scores={"new": 1.0})])
    assert {name: found.unscored for name, found in one.metrics.items()} == {"new": 1, "old": 1}
    assert one.better == one.worse == []


def test_what_cannot_be_paired_is_counted() -> None:
    before = [record(name) for name in ("both", "gone", "asked anew", "corrected")]
    after = [
        record("both"),
        record("new"),
        record("asked anew", input_hash="another"),
        record("corrected", reference="another"),
    ]
    one = compare(before, after)
    assert [pair.after.item for pair in one.pairs] == ["both"]
    assert one.only_before == ("gone",)
    assert one.only_after == ("new",)
    assert one.altered == ("asked anew", "corrected")


def test_suites_are_compared_each_for_itself() -> None:
    before = [record("a"), record("a", suite="safety")]
    after = [record("a"), record("a", suite="golden")]
    found = {one.suite: len(one.pairs) for one in compare_records(before, after)}
    assert found == {"golden": 0, "safety": 0, "test": 1}


def test_slices_show_who_lost_while_the_mean_stands_still() -> None:
    chat, mail = {"channel": "chat"}, {"channel": "mail"}
    before = [record("a", 0.0, slices=chat), record("b", 1.0, slices=mail)]
    after = [record("a", 1.0, slices=chat), record("b", 0.0, slices=mail)]
    one = compare(before, after)
    assert one.metrics["exact_match"].difference == 0
    by_channel = one.slices["channel"]
    assert by_channel["chat"]["exact_match"].difference == 1
    assert by_channel["mail"]["exact_match"].difference == -1


def test_a_slice_without_the_leading_metric_is_left_out() -> None:
    mine, other = (
        record(name, scores={metric: 1.0}, slices={"channel": name})
        for name, metric in (("chat", "exact_match"), ("web", "contains"))
    )
    found = summarise_changes([compare([mine, other], [mine, other])])["test"]
    assert list(found["metrics"]) == ["exact_match", "contains"]
    assert list(found["slices"]["channel"]) == ["chat"]


def test_the_largest_changes_are_the_first_examples() -> None:
    moved = {"a": 0.2, "b": 0.9, "c": -0.4, "d": 0.0, "e": -0.5}
    before = [record(item, 0.5) for item in moved]
    after = [record(item, 0.5 + rise) for item, rise in moved.items()]
    one = compare(before, after)
    assert [pair.after.item for pair in one.better] == ["b", "a"]
    assert [pair.after.item for pair in one.worse] == ["e", "c"]


def test_only_the_metrics_asked_for_count() -> None:
    scores = [{"exact_match": 0.0, "length": 1.0}, {"exact_match": 1.0, "length": 0.0}]
    sides = [[record("a", scores=one)] for one in scores]
    (one,) = compare_records(*sides, metrics=["length"])
    assert list(one.metrics) == ["length"]
    assert one.pairs[0].changes == {"length": -1.0}


def test_an_item_with_two_records_is_refused() -> None:
    with pytest.raises(LineageError, match=r"The item a of suite test has two records of tuned\."):
        compare_records([record("a"), record("a")], [])


def test_the_interval_of_shares_is_that_of_agresti_and_min() -> None:
    """Worked by hand: 50 pairs, 12 gained, 4 lost; half a row added to each cell."""
    ours = [1.0] * 12 + [0.0] * 4 + [1.0] * 34
    theirs = [0.0] * 12 + [1.0] * 4 + [1.0] * 34
    difference, (low, high) = paired_difference(ours, theirs)
    centre, margin = 8 / 52, 1.959964 * math.sqrt(17 - 64 / 52) / 52
    assert difference == pytest.approx(8 / 50)
    assert (low, high) == pytest.approx((centre - margin, centre + margin), abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_intervals_of_any_score_hold_what_they_promise(scale: float) -> None:
    """Of 400 comparisons of 80 noisy scores, about 95% hold the true difference."""
    import numpy as np

    draw, held = np.random.default_rng(7), 0
    for _ in range(400):
        theirs = draw.uniform(0, 1, 80)
        ours = theirs + draw.normal(0.02, 0.2, 80)
        _, (low, high) = paired_difference(list(scale * ours), list(scale * theirs))
        held += low <= scale * 0.02 <= high
        assert high - low < scale * 0.2
    assert held >= 0.93 * 400
