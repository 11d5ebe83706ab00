"""How often a rollout takes back what is no worse, and how soon what is.

Every simulated canary is judged by the real code with its default settings, once in 30 seconds of
traffic. Beside it stand a rule with fixed thresholds and a z test that is repeated at each look;
both see the same requests, once the candidate had the stage's minimum of them.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import binomtest, norm

from mlops_assets.progress import Advance, progress
from mlops_assets.request_record import CANARY, SHADOW
from mlops_assets.serving.arm_statistics import ArmStatistics
from mlops_assets.serving.release_spec import ReleaseSpec
from mlops_assets.serving.rollout import ADVANCE, ROLL_BACK, judge
from mlops_assets.serving.rollout_evidence import Evidence
from mlops_assets_tests.simulated_traffic import LOOK_S, REQUESTS_PER_S, Look, Scenario, looks

CANARIES, FEWER = 2000, 200
SPEC = ReleaseSpec()
Z = float(norm.ppf(0.95))
LIMIT, POINT = 0.05, 0.01
"""The fixed rule's: an error rate above 5%, or a point above the champion's."""
ALIKE = (
    (Scenario("A/A, 1% of the requests fail"), CANARIES),
    (Scenario("A/A, 0.1% fail", failing=0.001), FEWER),
    (Scenario("A/A, 5% fail", failing=0.05), FEWER),
    (Scenario("A/A, with outages of both", outages=True), FEWER),
    (Scenario("A/A, 3% of 500 users fail half the time", troubled=0.03), FEWER),
)
HARMFUL = (
    (Scenario("1 point more failures", worse=0.01), CANARIES),
    (Scenario("2 points more failures", worse=0.02), CANARIES),
    (Scenario("5 points more failures", worse=0.05), CANARIES),
    (Scenario("every request fails", worse=1.0), FEWER),
    (Scenario("10% slower (within the margin)", slower=1.1), FEWER),
    (Scenario("25% slower", slower=1.25), FEWER),
    (Scenario("50% slower", slower=1.5), FEWER),
    (Scenario("quality 2 points lower", quality=0.02), FEWER),
    (Scenario("quality 5 points lower", quality=0.05), FEWER),
    (Scenario("quality 15 points lower", quality=0.15), FEWER),
)


@dataclass
class Ended:
    """How simulated canaries ended."""

    canaries: int = 0
    rolled_back: int = 0
    at_deadline: int = 0
    served: list[int] = field(default_factory=list)
    """Requests that users had from a candidate before it was rolled back."""
    released: list[int] = field(default_factory=list)
    """The same before it went to everybody."""

    def add(self, action: str, served: int, late: bool = False) -> None:
        """Count one canary."""
        self.canaries += 1
        self.rolled_back += action == ROLL_BACK
        self.at_deadline += late
        (self.served if action == ROLL_BACK else self.released).append(served)


def rollout() -> None:
    """Print false rollbacks, power, and what users had from a harmful candidate."""
    started = time.perf_counter()
    print(f"\n{REQUESTS_PER_S} requests/s, a look each {LOOK_S} s, default settings\n")
    total = sum(count for _, count in (*ALIKE, *HARMFUL)) + FEWER
    with progress(logging.getLogger(__name__), "canaries", total) as advance:
        print("| no worse | canaries | rolled back | 95% interval | of them at the deadline"
              " | requests until released: median, p95 | fixed limits | repeated z |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|")
        for scenario, count in ALIKE:
            print(_alike_row(scenario, *(simulate(scenario, count, rule, advance)
                                         for rule in RULES)), flush=True)  # fmt: skip
        whole = simulate(ALIKE[0][0], FEWER, sequential_after_shadow, advance)
        print(_alike_row(Scenario("A/A, in shadow first"), whole, None, None), flush=True)
        print("\n| worse | rolled back | requests served before: median, p95 | fixed thresholds"
              " | served | repeated z test | served |")  # fmt: skip
        print("|---|---|---|---|---|---|---|")
        for scenario, count in HARMFUL:
            print(_harmful_row(scenario, *(simulate(scenario, count, rule, advance)
                                           for rule in RULES)), flush=True)  # fmt: skip
    print(f"\n{time.perf_counter() - started:.0f} s")


def simulate(
    scenario: Scenario, canaries: int, rule: "Rule", advance: Advance = lambda *_: None
) -> Ended:
    """Let ``rule`` decide on this many candidates, each with its own traffic."""
    ended = Ended()
    for seed in range(canaries):
        rule(scenario, seed, ended)
        if rule in (sequential, sequential_after_shadow):
            advance(1, scenario.name)
    return ended


def sequential(scenario: Scenario, seed: int, ended: Ended, *, shadow: bool = False) -> None:
    """Ours: the real evidence and the real verdict."""
    traffic, now = looks(scenario, seed), 0.0
    percents = ([0] if shadow else []) + SPEC.canary_steps
    served = 0
    evidence = Evidence(SPEC, SHADOW if shadow else CANARY)
    for percent in percents:
        stage, began = (CANARY if percent else SHADOW), now
        if percent == SPEC.canary_steps[0]:
            evidence = Evidence(SPEC, CANARY)
        evidence.enter()
        while True:
            look, now = next(traffic), now + LOOK_S
            arms = look.arms(percent) if percent else look.pairs(SPEC.shadow_share)
            evidence.add_block(*arms)
            served += arms[1].requests * bool(percent)
            verdict = judge(SPEC, stage, percent, now - began, evidence, total_s=now)
            if verdict.action == ROLL_BACK:
                ended.add(ROLL_BACK, served, verdict.reason.startswith("No verdict"))
                return
            if verdict.action == ADVANCE:
                break
    ended.add(ADVANCE, served)


def sequential_after_shadow(scenario: Scenario, seed: int, ended: Ended) -> None:
    """Ours, the stage before the canary with it."""
    sequential(scenario, seed, ended, shadow=True)


def _watched(harmful: Callable[[ArmStatistics, ArmStatistics], bool]) -> "Rule":
    """A rule that looks at all requests so far and goes on with time and sample."""

    def rule(scenario: Scenario, seed: int, ended: Ended) -> None:
        traffic, champion, candidate = looks(scenario, seed), ArmStatistics(), ArmStatistics()
        for percent in SPEC.canary_steps:
            elapsed, before = 0, candidate.requests
            while elapsed < SPEC.hold_s or candidate.requests - before < SPEC.minimum_requests:
                look: Look = next(traffic)
                control, canary = look.arms(percent)
                champion.merge(control)
                candidate.merge(canary)
                elapsed += LOOK_S
                if candidate.requests >= SPEC.minimum_requests and harmful(champion, candidate):
                    ended.add(ROLL_BACK, candidate.requests)
                    return
        ended.add(ADVANCE, candidate.requests)

    return rule


def _above_thresholds(champion: ArmStatistics, candidate: ArmStatistics) -> bool:
    rate, other = (arm.failed / arm.requests for arm in (candidate, champion))
    return rate > LIMIT or rate > other + POINT


def _significant(champion: ArmStatistics, candidate: ArmStatistics) -> bool:
    """The z test of two proportions, one-sided at 5%, as if this were the only look."""
    requests = champion.requests + candidate.requests
    pooled = (champion.failed + candidate.failed) / requests
    error = math.sqrt(pooled * (1 - pooled) * (1 / champion.requests + 1 / candidate.requests))
    rate, other = (arm.failed / arm.requests for arm in (candidate, champion))
    return error > 0 and (rate - other) / error > Z


Rule = Callable[[Scenario, int, Ended], None]
RULES: tuple[Rule, ...] = (sequential, _watched(_above_thresholds), _watched(_significant))


def _alike_row(scenario: Scenario, ours: Ended, fixed: Ended | None, z: Ended | None) -> str:
    interval = binomtest(ours.rolled_back, ours.canaries).proportion_ci(method="wilson")
    others = " | ".join(f"{_share(one)}" if one else "" for one in (fixed, z))
    return (
        f"| {scenario.name} | {ours.canaries:,} | {_share(ours)}"
        f" | {interval.low:.1%} to {interval.high:.1%} | {ours.at_deadline}"
        f" | {_middle(ours.released)} | {others} |"
    )


def _harmful_row(scenario: Scenario, ours: Ended, fixed: Ended, z: Ended) -> str:
    cells = [f"{_share(one)} | {_middle(one.served)}" for one in (ours, fixed, z)]
    return f"| {scenario.name} | {' | '.join(cells)} |"


def _share(ended: Ended) -> str:
    return f"{ended.rolled_back / ended.canaries:.1%}"


def _middle(served: list[int]) -> str:
    if not served:
        return "none"
    return f"{np.median(served):,.0f}, {np.quantile(served, 0.95):,.0f}"
