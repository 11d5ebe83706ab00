"""Whether one side lost more than the other, when a user may count many times."""

from collections.abc import Callable
from typing import Any

import pytest

from mlops_assets.monitoring.quality.same_users import same_users
from mlops_assets.monitoring.quality.worsening import Loss, count_users, mean_loss, p_worse
from mlops_assets_tests.quality_windows import Sides, people, requests


def singles(lost: int, of: int) -> list[Loss]:
    """Requests of nobody in particular."""
    return [("", 1.0)] * lost + [("", 0.0)] * (of - lost)


@pytest.mark.parametrize(
    ("now", "before"),
    [((8, 200), (4, 200)), ((12, 200), (20, 800)), ((6, 300), (0, 900)), ((3, 40), (9, 50))],
)
def test_it_is_fishers_exact_test_where_nobody_counts_twice(
    now: tuple[int, int], before: tuple[int, int]
) -> None:
    from scipy.stats import fisher_exact

    table = [[now[0], now[1] - now[0]], [before[0], before[1] - before[0]]]
    expected = fisher_exact(table, alternative="greater").pvalue
    sides = singles(*now), singles(*before)
    assert p_worse(*sides, 3) == pytest.approx(expected, abs=0.015)
    assert same_users(*sides).p_worse(3) == pytest.approx(expected, abs=0.015)


def test_only_worse_counts() -> None:
    assert p_worse(singles(40, 400), singles(4, 400), 0) == pytest.approx(1e-4)
    assert p_worse(singles(4, 400), singles(40, 400), 0) > 0.99
    assert p_worse(singles(0, 400), singles(0, 400), 0) == 1
    assert p_worse(singles(400, 400), singles(400, 400), 0) == 1


def test_a_hundred_votes_of_one_user_are_not_a_hundred_opinions() -> None:
    before = [(f"u{user}", float(user % 10 == 0)) for user in range(100)]
    one = [("angry", 1.0)] * 100 + [(f"v{user}", float(user % 10 == 0)) for user in range(30)]
    many = [(f"w{user}", 1.0) for user in range(100)] + one[100:]
    assert mean_loss(one) == mean_loss(many)
    assert (count_users(one), count_users(many)) == (31, 130)
    assert p_worse(one, before, 0) > 0.05
    assert p_worse(many, before, 0) == pytest.approx(1e-4)


def test_who_asks_how_often_makes_no_difference_to_the_same_users() -> None:
    def side(sound: int, unlucky: int, share: float) -> list[Loss]:
        lost = round(unlucky * share)
        return [("a", 0.0)] * sound + [("b", 1.0)] * lost + [("b", 0.0)] * (unlucky - lost)

    before = side(900, 100, 0.3)
    more_of_b = same_users(side(100, 400, 0.3), before)
    assert more_of_b.excess() == pytest.approx(0)
    assert more_of_b.p_worse(0) > 0.3
    worse_for_b = same_users(side(900, 100, 0.6), before)
    assert worse_for_b.excess() == pytest.approx(0.3 / 10)
    assert worse_for_b.p_worse(0) == pytest.approx(1e-4)


def test_a_user_of_one_side_is_no_comparison() -> None:
    assert same_users([("new", 1.0)] * 9 + [("a", 0.0)], [("gone", 0.0), ("a", 0.0)]).fewest == 1
    assert same_users([("new", 1.0)], [("gone", 0.0)]).fewest == 0


def test_the_seed_alone_decides_on_chance() -> None:
    sides = singles(9, 200), singles(3, 200)
    assert p_worse(*sides, 5) == p_worse(sides[0][::-1], sides[1][::-1], 5)
    assert p_worse(*sides, 5) != p_worse(*sides, 6)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(requests(200, 800, 0.05), id="requests"),
        pytest.param(requests(300, 300, 0.01), id="rare"),
        pytest.param(people(150, 600, 0.2, 20, 0.0), id="people-who-go"),
        pytest.param(people(150, 600, 0.2, 20, 0.5), id="half-stay"),
    ],
)
def test_false_alarms_where_nothing_changed(draw: Callable[[Any], Sides]) -> None:
    """At most alpha: with 5%, ten of 60 have a chance below 0.1%."""
    import numpy as np

    windows = [draw(np.random.default_rng(seed)) for seed in range(60)]
    found = [p_worse(*sides, seed) for seed, sides in enumerate(windows)]
    assert sum(p < 0.05 for p in found) < 10
    same = [same_users(*sides).p_worse(seed) for seed, sides in enumerate(windows)]
    assert sum(p < 0.05 for p in same) < 10


def test_few_users_who_ask_unequally_seldom_seem_certain_by_chance() -> None:
    """All users are new and one asks a third of everything: at most alpha, far out too."""
    import numpy as np

    draw = people(200, 800, 0.05, 10, 0.0)
    windows = [draw(np.random.default_rng(seed)) for seed in range(100)]
    found = [p_worse(*sides, seed) for seed, sides in enumerate(windows)]
    assert sum(p < 0.01 for p in found) < 4
    assert not any(p < 0.001 for p in found)
