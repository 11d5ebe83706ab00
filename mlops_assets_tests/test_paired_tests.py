"""The gate's statistics, against values worked out in another way."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from mlops_assets.evaluation.paired_tests import (
    Difference,
    bootstrap_means,
    compare,
    tango,
)
from mlops_assets.multiple_tests import holm

DRAWS, SEED = 2000, 7


def outcomes(won: int, lost: int, same: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 0 and 1 on ``won + lost + same`` items; half of the same ones are right."""
    right = [1.0] * (same // 2) + [0.0] * (same - same // 2)
    ours, theirs = [1.0] * won + [0.0] * lost + right, [0.0] * won + [1.0] * lost + right
    return np.array(ours), np.array(theirs)


def difference(won: int, lost: int, same: int) -> Difference:
    return compare(*outcomes(won, lost, same), DRAWS, SEED)


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (0, 5, 1.0), (10, 2, 79 / 4096), (3, 3, 42 / 64)],
)
def test_mcnemar_is_the_binomial_tail(won: int, lost: int, p: float) -> None:
    assert difference(won, lost, 20).p_better() == pytest.approx(p)


@pytest.mark.parametrize(("won", "lost"), [(12, 5), (0, 9), (3, 3)])
def test_without_a_margin_tango_is_mcnemar(won: int, lost: int) -> None:
    expected = (won - lost) / math.sqrt(won + lost)
    assert tango(won, lost, 100, 0.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("won", "lost", "items", "at"),
    [
        (12, 5, 100, -0.05),
        (0, 9, 80, -0.02),
        (7, 0, 60, 0.1),
        (0, 0, 40, -0.05),
        (30, 31, 400, 0.3),
    ],
)
def test_tango_uses_the_likeliest_share_of_lost_items(
    won: int, lost: int, items: int, at: float
) -> None:
    """Found here by search, in closed form there."""

    def unlikely(q: float) -> float:
        terms = ((won, q + at), (lost, q), (items - won - lost, 1 - 2 * q - at))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in terms if count)

    low, high = max(0.0, -at), (1 - at) / 2
    q = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
    spread = math.sqrt(items * (2 * q + at - at * at))
    assert tango(won, lost, items, at) == pytest.approx(
        (won - lost - items * at) / spread, rel=1e-3
    )


def test_the_interval_holds_what_is_not_rejected() -> None:
    found = difference(30, 20, 150)
    low, high = found.interval(0.05)
    assert low < found.value < high
    for edge, sign in ((low, 1), (high, -1)):
        assert sign * tango(30, 20, 200, edge) == pytest.approx(norm.ppf(0.95), abs=1e-6)


@pytest.mark.parametrize(("p21", "p12"), [(0.04, 0.02), (0.12, 0.10), (0.3, 0.28)])
@pytest.mark.parametrize("items", [30, 100, 500])
def test_a_loss_that_is_tolerated_is_rarely_called_too_large(
    items: int, p12: float, p21: float
) -> None:
    """The size of the test at its border, over many samples; 0.007 is three standard errors."""
    counts = np.random.default_rng(1).multinomial(items, [p12, p21, 1 - p12 - p21], size=5000)
    called = [difference_of(won, lost, items).p_worse(0.02) < 0.05 for won, lost, _ in counts]
    assert np.mean(called) < 0.05 + 0.02


def difference_of(won: int, lost: int, items: int) -> Difference:
    """As ``compare`` makes it from scores of 0 and 1."""
    return Difference(items, 0.0, 0.0, True, int(won), int(lost), 0.0)


def test_what_is_worse_and_what_is_not_are_told_apart() -> None:
    worse, same, better = difference(5, 60, 335), difference(20, 20, 360), difference(60, 5, 335)
    assert worse.p_worse(0.02) < 0.001 < 0.4 < same.p_worse(0.02)
    assert same.p_not_inferior(0.05) < 0.01
    assert worse.p_not_inferior(0.05) > 0.9
    assert better.p_better() < 0.001 < 0.5 < worse.p_better()


def test_other_scores_are_compared_by_a_seeded_bootstrap() -> None:
    dice = np.random.default_rng(3)
    theirs = dice.random(300)
    ours = theirs + dice.normal(0.03, 0.1, 300)
    found = compare(ours, theirs, DRAWS, SEED)
    assert (found.binary, found.test) == (False, "paired bootstrap")
    error = (ours - theirs).std() / math.sqrt(300)
    low, high = found.interval(0.05)
    assert low == pytest.approx(found.value - 1.645 * error, abs=0.2 * error)
    assert high == pytest.approx(found.value + 1.645 * error, abs=0.2 * error)
    assert 1 / (DRAWS + 1) <= found.p_better() < 0.001
    assert found.p_worse(0.02) == 1.0
    again = compare(ours, theirs, DRAWS, SEED)
    assert again.p_better() == found.p_better()
    assert (bootstrap_means(ours - theirs, DRAWS, SEED + 1) != found.draws).any()


def test_scores_without_any_difference_show_nothing() -> None:
    scores = np.linspace(0.1, 0.9, 50)
    found = compare(scores, scores, DRAWS, SEED)
    assert (found.p_better(), found.p_worse(0.0), found.value) == (1.0, 1.0, 0.0)


def test_the_bootstrap_agrees_with_the_exact_tests_on_many_items() -> None:
    ours, theirs = outcomes(70, 45, 885)
    exact = compare(ours, theirs, DRAWS, SEED)
    drawn = Difference(1000, ours.mean(), theirs.mean(), False, 70, 45, 0.0,
                       bootstrap_means(ours - theirs, 20_000, SEED), ours - theirs)  # fmt: skip
    assert drawn.p_better() == pytest.approx(exact.p_better(), abs=0.01)
    assert drawn.p_not_inferior(0.0) == pytest.approx(exact.p_not_inferior(0.0), abs=0.01)


def few_apart(won: int, lost: int, items: int) -> Difference:
    """Scores that are neither 0 nor 1, and the same but on a few items."""
    theirs = np.full(items, 0.05)
    theirs[won : won + lost] = 0.95
    ours = np.full(items, 0.05)
    ours[:won] = 0.95
    return compare(ours, theirs, DRAWS, SEED)


@pytest.mark.parametrize(("won", "p"), [(0, 1.0), (3, 1 / 8), (4, 1 / 16), (7, 1 / 128)])
def test_a_few_wins_by_other_scores_show_no_more_than_a_coin_would(won: int, p: float) -> None:
    """The bootstrap alone calls three wins of a hundred significant: it cannot draw a loss."""
    assert few_apart(won, 0, 100).p_better() == pytest.approx(max(p, 1 / DRAWS), rel=0.2)


@pytest.mark.parametrize(("items", "ruled_out"), [(20, False), (100, False), (400, True)])
def test_items_without_a_loss_rule_out_no_loss_if_they_are_few(items: int, ruled_out: bool) -> None:
    """The rule of three: a loss of 2 points needs 150 items of which none is lost."""
    assert (few_apart(0, 0, items).p_not_inferior(0.02) < 0.05) is ruled_out


def test_other_scores_show_what_is_not_there_in_at_most_alpha_of_all_comparisons() -> None:
    """Five of fifty items differ, by anything; the bootstrap alone is taken in by 8%."""
    dice = np.random.default_rng(1)
    better = 0
    for _ in range(600):
        ours, theirs = np.zeros((2, 50))
        at = dice.choice(50, 5, replace=False)
        size, up = dice.uniform(0.1, 1, 5), dice.random(5) < 0.5
        ours[at], theirs[at] = np.where(up, size, 0), np.where(up, 0, size)
        better += compare(ours, theirs, 1000, SEED).p_better() < 0.05
    assert better / 600 <= 0.05 + 0.01


@pytest.mark.parametrize(
    ("ours", "theirs"), [([], []), ([1.0], [1.0, 0.0]), ([math.nan], [1.0]), ([math.inf], [0.5])]
)
def test_what_cannot_be_compared_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="score"):
        compare(np.array(ours), np.array(theirs), DRAWS, SEED)


def test_the_loss_that_a_slice_would_notice_is_noticed_four_times_in_five() -> None:
    items, margin, alpha = 300, 0.02, 0.01
    typical = difference_of(15, 15, items)
    typical = Difference(items, 0.0, 0.0, True, 15, 15, math.sqrt(0.1))
    loss = typical.detectable_loss(margin, alpha)
    shares = [0.05 - loss / 2 + 0.02, 0.05 + loss / 2 + 0.02]
    counts = np.random.default_rng(2).multinomial(items, [*shares, 1 - sum(shares)], size=2000)
    noticed = [difference_of(won, lost, items).p_worse(margin) < alpha for won, lost, _ in counts]
    assert 0.6 < np.mean(noticed) < 0.95


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [([], []), ([0.01], [0.01]), ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.9, 0.8], [1, 1])],
)
def test_holm(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 300), st.floats(0.001, 0.4))
def test_whatever_the_counts_a_p_value_is_one(
    won: int, lost: int, same: int, margin: float
) -> None:
    if not won + lost + same:
        return
    found = difference(won, lost, same)
    values = [found.p_better(), found.p_worse(margin), found.p_not_inferior(margin)]
    assert all(0 <= p <= 1 for p in values)
    assert found.p_worse(margin) + found.p_not_inferior(margin) == pytest.approx(1)
    assert found.p_worse(margin) >= found.p_worse(margin / 2) - 1e-9
    low, high = found.interval(0.05)
    assert -1 <= low <= found.value + 1e-9
    assert found.value - 1e-9 <= high <= 1
