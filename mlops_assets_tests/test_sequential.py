"""The evidence on two streams: its expectation exactly, its formula against an independent one."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.serving.rollout.sequential import (
    Bet,
    Excess,
    Expected,
    NonInferiority,
    Tally,
    best_bet,
)

share = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
few = st.integers(1, 4)


def ones(yes: int, of: int) -> Tally:
    return {1.0: yes, 0.0: of - yes}


def expectation(bet: Bet, sizes: tuple[int, int], means: tuple[float, float]) -> float:
    """Of the e-value over all outcomes of a block, by the binomial distribution."""
    from scipy.stats import binom

    total = 0.0
    for yes in itertools.product(range(sizes[0] + 1), range(sizes[1] + 1)):
        chance = math.prod(binom.pmf(k, n, p) for k, n, p in zip(yes, sizes, means, strict=True))
        total += chance * math.exp(bet.log_e(ones(yes[0], sizes[0]), ones(yes[1], sizes[1])))
    return total


@settings(max_examples=60, deadline=None)
@given(share, share, st.floats(-0.3, 0.3), few, few, share, st.floats(0, 0.5), st.floats(0.05, 1))
def test_no_bet_wins_on_average_where_the_null_hypothesis_is_true(
    control: float,
    candidate: float,
    margin: float,
    controls: int,
    candidates: int,
    true: float,
    further: float,
    spread: float,
) -> None:
    bet = best_bet(Expected(control, candidate, spread), margin, controls, candidates)
    if bet is None:
        return
    beyond = -further if candidate - control > margin else further
    other = true + margin + beyond
    if 0 <= other <= 1:
        assert expectation(bet, (controls, candidates), (true, other)) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("expected", "margin", "sizes"),
    [
        ((0.01, 0.06), 0.0, (95, 5)),
        ((0.01, 0.01), 0.01, (50, 50)),
        ((0.2, 0.1), 0.05, (3, 7)),
        ((0.05, 0.5), 0.1, (19, 1)),
    ],
)
def test_the_bet_is_the_one_of_the_nearest_null_hypothesis(
    expected: tuple[float, float], margin: float, sizes: tuple[int, int]
) -> None:
    """Turner and Gruenwald's e-value is a likelihood ratio; its null is found numerically."""
    from scipy.optimize import minimize_scalar

    def divergence(p: float, q: float) -> float:
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    def distance(at: float) -> float:
        return sizes[0] * divergence(expected[0], at) + sizes[1] * divergence(
            expected[1], at + margin
        )

    at = float(
        minimize_scalar(
            distance, bounds=(1e-9, 1 - margin - 1e-9), method="bounded", options={"xatol": 1e-10}
        ).x
    )
    null = (at, at + margin)
    bet = best_bet(Expected(*expected), margin, *sizes)
    assert bet is not None
    growth, best = 0.0, 0.0
    for arm in (0, 1):
        for value in (0, 1):
            ratio = [abs(1 - value - side[arm]) for side in (expected, null)]
            chance = sizes[arm] * ratio[0]
            one = ({value: 1}, {}) if arm == 0 else ({}, {value: 1})
            growth += chance * bet.log_e(*one)
            best += chance * math.log(ratio[0] / ratio[1])
    assert growth == pytest.approx(best, rel=0.01)
    assert growth <= best + 1e-12  # none grows faster


@given(st.integers(0, 30), st.integers(0, 30), st.floats(0.001, 0.5))
def test_streams_that_are_exchanged_give_evidence_that_is_exchanged(
    one: int, other: int, rate: float
) -> None:
    worse, better = min(1.0, rate + 0.1), rate
    up = best_bet(Expected(better, worse), 0.0, 30, 30)
    down = best_bet(Expected(worse, better), 0.0, 30, 30)
    assert up is not None
    assert down is not None
    assert up.log_e(ones(one, 30), ones(other, 30)) == pytest.approx(
        down.log_e(ones(other, 30), ones(one, 30)), abs=1e-9
    )


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20), st.integers(0, 19))
def test_one_more_failure_of_the_candidate_never_speaks_for_it(
    failures: list[tuple[int, int]], where: int
) -> None:
    where = where % max(1, len(failures))

    def evidence(more: int) -> tuple[float, float]:
        harm, fine = Excess(0.0), NonInferiority(0.05, 0.05)
        for index, (control, candidate) in enumerate(failures):
            worse = min(20, candidate + more * (index == where))
            harm.update(ones(control, 20), ones(worse, 20), 0.02)
            fine.update(ones(control, 20), ones(worse, 20), Expected(0.02, 0.02))
        return harm.peak, fine.log_e

    (harm, fine), (more_harm, less_fine) = evidence(0), evidence(1)
    assert more_harm >= harm - 1e-9
    assert less_fine <= fine + 1e-9


def streams(dice: np.random.Generator, rates: tuple[float, float]) -> Iterator[tuple[Tally, Tally]]:
    """Blocks with 5, 25 and 50 percent for the candidate, and an outage that both meet."""
    for percent in (5, 25, 50):
        for block in range(40):
            candidates = int(dice.binomial(50, percent / 100))
            both = 0.3 if percent == 25 and block % 10 == 0 else 0.0
            sizes = (50 - candidates, candidates)
            yes = [
                int(dice.binomial(n, min(1.0, p + both))) for n, p in zip(sizes, rates, strict=True)
            ]
            yield ones(yes[0], sizes[0]), ones(yes[1], sizes[1])


def shown(rates: tuple[float, float], margin: float, runs: int = 120) -> tuple[float, float]:
    """How often harm, and that there is none of the margin, was ever shown at 5%."""
    dice = np.random.default_rng(7)
    found = np.zeros(2)
    for _ in range(runs):
        harm, fine, ever, failed, of = Excess(0.0), NonInferiority(margin, 0.05), False, 0.2, 20
        for control, candidate in streams(dice, rates):
            rate = failed / of
            harm.update(control, candidate, rate)
            fine.update(control, candidate, Expected(rate, rate))
            ever |= fine.log_e >= math.log(20)
            failed, of = failed + control[1.0], of + sum(control.values())
        found += (harm.peak >= math.log(20), ever)
    return float(found[0]) / runs, float(found[1]) / runs


def test_looking_after_every_block_keeps_both_errors_below_alpha() -> None:
    assert shown((0.02, 0.02), 0.03)[0] <= 0.05
    assert shown((0.02, 0.05), 0.03)[1] <= 0.05


def test_what_is_there_is_found() -> None:
    harm, _ = shown((0.02, 0.1), 0.03, runs=40)
    _, fine = shown((0.02, 0.02), 0.06, runs=40)
    assert harm >= 0.9
    assert fine >= 0.9


def test_harm_that_begins_late_is_found_soon() -> None:
    harm = Excess(0.0)
    for _ in range(100):
        harm.update(ones(1, 100), ones(0, 50), 0.01)
    assert harm.peak < math.log(20)
    requests = 0
    while harm.peak < math.log(20):
        harm.update(ones(1, 100), ones(3, 10), 0.01)
        requests += 10
    assert requests <= 260  # the rest of an epoch of 250, then a block


def test_later_harm_outvotes_any_calm_past() -> None:
    fine = NonInferiority(0.01, 0.05)
    for _ in range(10_000):
        fine.update(ones(0, 20), ones(0, 20), Expected(0.001, 0.001))
    assert fine.log_e >= math.log(20)
    for _ in range(3):
        fine.update(ones(0, 20), ones(10, 20), Expected(0.001, 0.001))
    assert not fine.log_e >= math.log(20)


def test_a_block_without_one_of_the_arms_says_nothing() -> None:
    harm, fine = Excess(0.0), NonInferiority(0.05, 0.05)
    harm.update({}, ones(20, 20), 0.01)
    fine.update(ones(0, 20), {}, Expected(0.01, 0.01))
    assert harm.peak == pytest.approx(0)
    assert fine.log_e == pytest.approx(0)
