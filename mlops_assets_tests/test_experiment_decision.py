"""Two releases and a metric from feedback: the plan, the winner, the split, the guardrails."""

import math

import numpy as np
import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.request_record import CANARY
from mlops_assets.serving.records.observations import Observation
from mlops_assets.serving.traffic.experiment_decision import ExperimentTest, split_evidence
from mlops_assets.serving.traffic.experiment_plan import ExperimentPlan, minimum_detectable_effect
from mlops_assets.verdicts import INCONCLUSIVE

PLAN = ExperimentPlan(baseline=0.6, minimum_effect=0.15)


def experiment(seed: int, better: float, users: int, *, graded: bool = False) -> ExperimentTest:
    """As many users of each variant, of whom 60% are content with a."""
    dice, test = np.random.default_rng(seed), ExperimentTest(PLAN)
    for number in range(users):
        for variant, mean in (("a", 0.6), ("b", 0.6 + better)):
            user = f"{variant}{number}"
            test.assign(user, variant)
            value = dice.beta(8 * mean, 8 * (1 - mean)) if graded else dice.random() < mean
            test.vote(user, variant, float(value))
    return test


def winners(better: float, users: int = PLAN.users_needed) -> list[str]:
    return [experiment(seed, better, users).verdict().winner for seed in range(40)]


def test_the_planned_effect_is_found_with_the_planned_power() -> None:
    assert winners(0.15).count("b") >= 0.7 * 40  # 80% are planned; 40 draws
    assert winners(-0.15).count("a") >= 0.7 * 40


def test_releases_that_are_alike_rarely_have_a_winner() -> None:
    assert winners(0.0).count(INCONCLUSIVE) >= 0.9 * 40


def test_scores_between_0_and_1_need_fewer_users() -> None:
    """Their variance is a ninth of that of right and wrong."""
    assert experiment(1, 0.15, PLAN.users_needed // 3, graded=True).verdict().winner == "b"


@pytest.mark.parametrize(
    "plan",
    [
        ExperimentPlan(0.6, 0.05),
        ExperimentPlan(0.6, 0.05, alpha=0.01, power=0.9),
        ExperimentPlan(0.05, 0.01),
    ],
)
def test_the_users_needed_are_those_of_walds_approximation(plan: ExperimentPlan) -> None:
    """With g = effect^2 / (4 variance), n g = ln(12 / alpha) + z sqrt(2 n g)."""
    from scipy.stats import norm

    middle = plan.baseline + plan.minimum_effect / 2
    growth = plan.minimum_effect**2 / (4 * middle * (1 - middle))
    z, target = float(norm.ppf(plan.power)), math.log(12 / plan.alpha)
    root = (z * math.sqrt(2) + math.sqrt(2 * z * z + 4 * target)) / 2
    assert plan.users_needed == pytest.approx(root**2 / growth, rel=0.05)


def test_the_detectable_effect_is_that_of_the_users_there_are() -> None:
    effect = minimum_detectable_effect(0.6, users=5000)
    assert ExperimentPlan(0.6, effect).users_needed <= 5000
    assert ExperimentPlan(0.6, effect - 1e-4).users_needed > 5000
    with pytest.raises(LineageError, match="With 3 users"):
        minimum_detectable_effect(0.6, users=3)


@pytest.mark.parametrize(
    "plan",
    [
        (0.0, 0.1),
        (0.95, 0.1),
        (0.5, 0.0),
        (0.5, math.nan),
        (0.5, 0.1, 0.0),
        (0.5, 0.1, 0.05, 1.0),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(plan: tuple[float, ...]) -> None:
    with pytest.raises(LineageError, match="cannot look for a difference"):
        ExperimentPlan(*plan)


def test_a_broken_split_gives_no_verdict() -> None:
    test = experiment(1, 0.3, 200)
    assert test.verdict().winner == "b"
    for number in range(100):
        test.assign(f"more{number}", "a")
    assert test.verdict().winner == INCONCLUSIVE
    assert "300 users have a, 200 b, of halves" in test.verdict().reason


def test_the_evidence_against_the_split_is_a_martingale() -> None:
    """One more user of a fair coin multiplies it by 1 on average."""
    for a, b in ((0, 0), (3, 9), (400, 300)):
        after = (math.exp(split_evidence(a + 1, b)) + math.exp(split_evidence(a, b + 1))) / 2
        assert after == pytest.approx(math.exp(split_evidence(a, b)))


def test_a_user_votes_once() -> None:
    test = ExperimentTest(PLAN)
    for number in range(200):
        test.vote(f"a{number}", "a", 0.0)
        for _ in range(3):
            test.vote(f"b{number % 4}", "b", 1.0)
    assert test.verdict().winner == INCONCLUSIVE
    assert test.verdict().reason.startswith("No difference is shown; 0 users")


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_a_value_that_is_none_gives_no_verdict(value: float) -> None:
    test = experiment(1, 0.3, 200)
    test.vote("another", "a", value)
    assert test.verdict().winner == INCONCLUSIVE
    assert test.verdict().reason == "1 values of the metric are not between 0 and 1."


def test_a_guardrail_of_b_makes_a_the_winner() -> None:
    test = experiment(1, 0.3, 200)
    for number in range(200):
        for variant in ("a", "b"):
            fails = variant == "b" and number % 4 == 0
            test.observe(variant, Observation(CANARY, number, fails, False, False, 100.0))
    verdict = test.verdict()
    assert verdict.winner == "a"
    assert "A guardrail of b failed. errors: 25" in verdict.reason
