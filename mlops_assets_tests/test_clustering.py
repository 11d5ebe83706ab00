"""What the requests of few users say: as much as their users do."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.request_record import CANARY, CHAMPION
from mlops_assets.serving.records.observations import Observation
from mlops_assets.serving.rollout.clustering import FEWEST_USERS, Clustering
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout_criteria import compared
from mlops_assets.serving.rollout.rollout_evidence import Evidence
from mlops_assets.verdicts import FAIL

named = st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d", "e", "f"]), st.booleans()))


@given(named)
def test_the_design_effect_is_that_of_the_users_means(requests: list[tuple[str, bool]]) -> None:
    """Against the sums as they are written down, over users, with every request at hand."""
    clustering, users = Clustering(), dict[str, list[float]]()
    for number, (user, value) in enumerate(requests):
        clustering.add(user, value)
        users.setdefault(user or f"nobody {number}", []).append(float(value))
    values = [value for own in users.values() for value in own]
    if len(users) < FEWEST_USERS or len(set(values)) < 2:
        assert clustering.design_effect == 1
        return
    mean = sum(values) / len(values)
    between = sum(sum(value - mean for value in own) ** 2 for own in users.values())
    within = sum((value - mean) ** 2 for value in values)
    alone = 1 - sum((len(own) / len(values)) ** 2 for own in users.values())
    assert clustering.design_effect == pytest.approx(max(1.0, between / within / alone))


def test_a_user_who_is_trouble_with_any_release_takes_none_back() -> None:
    """Every tenth user of the champion fails always, and one of the candidate's five users."""

    def told(name: Callable[[int], str]) -> str:
        evidence = Evidence(ReleaseSpec(), CANARY)
        for number in range(6000):
            user = number % 55
            arm, trouble = (CANARY, user == 50) if user >= 50 else (CHAMPION, user % 10 == 0)
            evidence.add(
                Observation(
                    arm=arm,
                    at=number / 10,
                    failed=trouble and number % 3 != 0,
                    empty=False,
                    refused=False,
                    latency_ms=100.0,
                    user=name(user),
                )
            )
        errors = compared(evidence, "errors", stage=2)
        return errors.verdict

    assert told(lambda user: "") == FAIL
    assert told(str) != FAIL
