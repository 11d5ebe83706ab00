"""Where users stand: uniform, sticky, monotone, and independent from split to split."""

from collections import Counter

import pytest
from scipy.stats import chi2_contingency, chisquare

from mlops_assets.serving.traffic.assignment import Assignment, Experiments
from mlops_assets.serving.traffic.bucketing import bucket

USERS = [f"{number:064x}" for number in range(100_000)]
INDEPENDENT = 0.001  # p value; the users are fixed, so each test gives one and the same


class Everybody:
    """Flags that keep nobody out."""

    def eligible(self, *_: object) -> bool:
        return True


@pytest.mark.parametrize("salt", ["canary/1", "canary/2", "", "s" * 500, "\N{SNOWMAN}"])
def test_users_are_spread_evenly(salt: str) -> None:
    counts = Counter(int(100 * bucket(user, salt)) for user in USERS)
    assert set(counts) == set(range(100))
    assert chisquare(list(counts.values())).pvalue > INDEPENDENT


def test_a_place_is_the_same_for_ever() -> None:
    assert bucket("user", "salt") == 0.7216886903825709
    assert bucket("user", "salt") != bucket("user", "other")
    assert 0 <= bucket("\ud800", "\ud800") < 1  # a lone surrogate is a name like another


def test_who_has_the_canary_keeps_it_as_it_grows() -> None:
    reached = [{user for user in USERS if bucket(user, "c") < share} for share in (0.05, 0.25, 0.5)]
    assert reached[0] < reached[1] < reached[2]
    assert [round(len(some) / len(USERS), 2) for some in reached] == [0.05, 0.25, 0.5]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("canary/1", "canary/2", id="two canaries"),
        pytest.param("canary/1", "tone/variant", id="a canary and an experiment's variants"),
        pytest.param("tone/variant", "length/variant", id="two experiments"),
        pytest.param("tone/share", "tone/variant", id="taking part, and with which variant"),
    ],
)
def test_splits_have_nothing_to_do_with_each_other(one: str, other: str) -> None:
    table = [[0, 0], [0, 0]]
    for user in USERS:
        table[bucket(user, one) < 0.25][bucket(user, other) < 0.5] += 1
    assert chi2_contingency(table).pvalue > INDEPENDENT


def test_half_of_every_share_gets_each_variant() -> None:
    small, large = (Assignment("tone", "s", share, {"a": "A", "b": "B"}) for share in (0.1, 0.4))
    first = {user: variant for user in USERS if (variant := small.variant(user))}
    second = {user: variant for user in USERS if (variant := large.variant(user))}
    assert first.items() <= second.items()  # a growing share moves nobody
    for some in (first, second):
        assert chisquare(list(Counter(some.values()).values())).pvalue > INDEPENDENT


def test_a_user_is_in_one_experiment_at_most_the_one_that_began_first() -> None:
    both = [Assignment(name, name, 0.5, {"a": "A", "b": "B"}) for name in ("first", "second")]
    counts: Counter[str] = Counter()
    for user in USERS[:20_000]:
        taken = Experiments(both).assign(user, {}, Everybody())  # type: ignore[arg-type]
        counts[taken[0] if taken else "none"] += 1
        if both[0].variant(user):
            assert taken is not None
            assert taken[0] == "first"
    assert chisquare([counts["first"], counts["second"] * 2, counts["none"] * 2]).pvalue > 0.0001
