"""How often a rollout takes back what is no worse, and how soon what is.

Every simulated canary is judged by the real code with its default settings, once in 30 seconds of
traffic. Beside it stand a rule with fixed thresholds and a z test that is repeated at each look;
both see the same requests, once the candidate had the stage's minimum of them.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import binomtest, norm

from mlops_assets.progress import Advance, progress
from mlops_assets.request_record import CANARY, SHADOW
from mlops_assets.serving.rollout.arm_statistics import ArmStatistics
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout import ADVANCE, ROLL_BACK, judge
from mlops_assets.serving.rollout.rollout_evidence import Evidence
from mlops_assets.serving.traffic.experiment_decision import ExperimentTest
from mlops_assets.serving.traffic.experiment_plan import ExperimentPlan
from mlops_assets.verdicts import INCONCLUSIVE
from mlops_assets_tests.simulated_traffic import LOOK_S, REQUESTS_PER_S, Look, Scenario, looks

CANARIES, SOME, FEWER = 2000, 500, 100
SPEC = ReleaseSpec()
Z, TWO_SIDED = float(norm.ppf(0.95)), float(norm.ppf(0.975))
LIMIT, POINT = 0.05, 0.01
"""The fixed rule's: an error rate above 5%, or a point above the champion's."""
ALIKE = (
    (Scenario("A/A, 1% of the requests fail"), CANARIES),
    (Scenario("A/A, 0.1% fail", failing=0.001), FEWER),
    (Scenario("A/A, 5% fail", failing=0.05), FEWER),
    (Scenario("A/A, with outages of both", outages=True), FEWER),
    (Scenario("A/A, 3% of 500 users fail half the time", troubled=0.03), FEWER),
    (Scenario("A/A, 500 users, each with its own pace", pace=0.4), FEWER),
)
HARMFUL = (
    (Scenario("1 point more failures", worse=0.01), SOME),
    (Scenario("2 points more failures", worse=0.02), SOME),
    (Scenario("5 points more failures", worse=0.05), SOME),
    (Scenario("every request fails", worse=1.0), FEWER),
    (Scenario("10% slower (within the margin)", slower=1.1), FEWER),
    (Scenario("25% slower", slower=1.25), FEWER),
    (Scenario("50% slower", slower=1.5), FEWER),
    (Scenario("5 points, 500 users of their own pace", worse=0.05, pace=0.4), FEWER),
    (Scenario("quality 2 points lower", quality=0.02), FEWER),
    (Scenario("quality 5 points lower", quality=0.05), FEWER),
    (Scenario("quality 15 points lower", quality=0.15), FEWER),
)
PLAN = ExperimentPlan(baseline=0.6, minimum_effect=0.1)
EXPERIMENTS, EFFECTS, USERS_A_LOOK = 300, (0.0, 0.05, 0.1, -0.1), 50


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
    total += EXPERIMENTS * len(EFFECTS)
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
        experiments(advance)
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
            if scenario.sticky:
                for observation in look.observations(percent, now):
                    evidence.add(observation)
            else:
                evidence.add_block(
                    *(look.arms(percent) if percent else look.pairs(SPEC.shadow_share))
                )
            served += look.chosen(percent)
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


def experiments(advance: Advance) -> None:
    """Print who wins experiments, with the planned users at most, beside a repeated z test."""
    print(f"\n{EXPERIMENTS} experiments a row on a metric of {PLAN.baseline:g}, planned to find"
          f" {PLAN.minimum_effect:g} with {PLAN.users_needed:,} users each\n")  # fmt: skip
    print("| b is better by | b wins | a wins | users each: median | z: b wins | z: a wins |")
    print("|---|---|---|---|---|---|")
    for effect in EFFECTS:
        ours, peer, users = Counter[str](), Counter[str](), list[int]()
        for seed in range(EXPERIMENTS):
            winner, needed, other = _experiment(seed, effect)
            ours[winner] += 1
            peer[other] += 1
            users.append(needed)
            advance(1, f"experiment, {effect:+g}")
        shares = [f"{count / EXPERIMENTS:.1%}"
                  for count in (ours["b"], ours["a"], peer["b"], peer["a"])]  # fmt: skip
        print(f"| {effect:+g} | {shares[0]} | {shares[1]} | {np.median(users):,.0f}"
              f" | {shares[2]} | {shares[3]} |", flush=True)  # fmt: skip


def _experiment(seed: int, effect: float) -> tuple[str, int, str]:
    """Our winner, the users of each variant until then, and who wins by repeated z tests."""
    dice, test, other = np.random.default_rng(seed), ExperimentTest(PLAN), ""
    content = dice.random((PLAN.users_needed, 2)) < (PLAN.baseline, PLAN.baseline + effect)
    winner, needed = INCONCLUSIVE, PLAN.users_needed
    for user, values in enumerate(content):
        for variant, value in zip("ab", values, strict=True):
            test.vote(f"{variant}{user}", variant, float(value))
        if (user + 1) % USERS_A_LOOK:
            continue
        if winner == INCONCLUSIVE and (winner := test.verdict().winner) != INCONCLUSIVE:
            needed = user + 1
        a, b = content[: user + 1].mean(axis=0)
        error = math.sqrt((a + b) * (1 - (a + b) / 2) / (user + 1))
        if not other and error and abs(b - a) / error > TWO_SIDED:
            other = "b" if b > a else "a"
    return winner, needed, other


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
