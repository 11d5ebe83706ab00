"""Which of two releases is better by a metric from feedback, decided at any time.

The unit is a user: one value in [0, 1] each, the first that is known. Both directions are tested
with half of alpha by the evidence of ``sequential``, so an experiment may be looked at as often as
wanted, ended when a winner is shown, and run longer than planned.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlops_assets.request_record import CANARY, CHAMPION
from mlops_assets.serving.records.observations import Observation
from mlops_assets.serving.rollout.arm_statistics import SCORE_DIGITS
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout_criteria import COMPARED, SPIKES, compared, spike
from mlops_assets.serving.rollout.rollout_evidence import QUALITY, Evidence
from mlops_assets.serving.rollout.sequential import Excess, p_value
from mlops_assets.serving.traffic.experiment_plan import SCALES, ExperimentPlan
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, Criterion

A, B = "a", "b"
SPLIT_ALPHA = 0.001
"""Probability that a sound split of the users is taken for a broken one."""
SPLIT_WEIGHT = 100
"""How closely the bet against the split stays with it: that of as many users seen before."""
BLOCK_USERS = 5
"""Values of each variant in a block, at least."""


@dataclass(frozen=True)
class ExperimentVerdict:
    """Who won, if anybody."""

    winner: str
    """``a``, ``b`` or ``INCONCLUSIVE``."""
    reason: str
    """One sentence for people."""
    criteria: tuple[Criterion, ...]
    """Split, guardrails and metric, each with its numbers."""


class ExperimentTest:
    """What is known of an experiment so far; made again from the logs at any time."""

    def __init__(self, plan: ExperimentPlan, guardrails: ReleaseSpec | None = None) -> None:
        self.plan = plan
        self.assigned = {A: 0, B: 0}
        self.values: dict[str, Counter[float]] = {A: Counter(), B: Counter()}
        self.invalid = 0
        """Values that are no number, or out of bounds."""
        self._users: set[str] = set()
        self._voters: set[str] = set()
        self._block: dict[str, Counter[float]] = {A: Counter(), B: Counter()}
        self._guardrails = Evidence(guardrails or ReleaseSpec(), CANARY)
        grid = [plan.minimum_effect * scale for scale in SCALES]
        self._better = {one: Excess(grid=grid, restart_every=math.inf) for one in (A, B)}

    def assign(self, user: str, variant: str) -> None:
        """A user met its variant; every further time counts for nothing."""
        if user not in self._users:
            self._users.add(user)
            self.assigned[variant] += 1

    def observe(self, variant: str, observation: Observation) -> None:
        """A request of a variant ended; the guardrails compare b with a."""
        arm = CHAMPION if variant == A else CANARY
        self._guardrails.add(replace(observation, arm=arm, quality=None))

    def vote(self, user: str, variant: str, value: float) -> None:
        """The metric of a user; only its first sound value counts, users are not repeated."""
        if not 0 <= value <= 1:  # NaN too
            self.invalid += 1
            return
        if user in self._voters:
            return
        self._voters.add(user)
        self._block[variant][round(value, SCORE_DIGITS)] += 1
        if min(votes.total() for votes in self._block.values()) >= BLOCK_USERS:
            self._close()

    def verdict(self) -> ExperimentVerdict:
        """Who has won as of now. No verdict where the split is broken or a value is none."""
        criteria = (self._split(), self._sound(), *self._harms(), *self._metric())
        split, sound, *others = criteria
        for one in (split, sound):
            if one.verdict != PASS:
                return ExperimentVerdict(INCONCLUSIVE, one.detail, criteria)
        for one in others:
            if one.verdict == FAIL:
                return ExperimentVerdict(A, f"A guardrail of b failed. {one.detail}", criteria)
        for variant, one in zip((A, B), criteria[-2:], strict=True):
            if one.verdict == PASS:
                return ExperimentVerdict(variant, one.detail, criteria)
        few = min(votes.total() for votes in self.values.values())
        return ExperimentVerdict(
            INCONCLUSIVE,
            f"No difference is shown; {few:,} users of each variant have a value,"
            f" {self.plan.users_needed:,} were planned.",
            criteria,
        )

    def _close(self) -> None:
        block, self._block = self._block, {A: Counter(), B: Counter()}
        for better, worse in ((A, B), (B, A)):
            expected, spread = self._expected(worse)
            self._better[better].update(block[worse], block[better], expected, spread)
        for variant, votes in block.items():
            self.values[variant].update(votes)

    def _expected(self, variant: str) -> tuple[float, float]:
        """Mean and spread of a variant's values before the next block, starting from the plan."""
        votes, weight, base = self.values[variant], 20, self.plan.baseline
        count = votes.total() + weight
        mean = (sum(value * n for value, n in votes.items()) + weight * base) / count
        square = sum(n * (value - mean) ** 2 for value, n in votes.items())
        variance = (square + weight * base * (1 - base)) / count
        return mean, min(1.0, max(0.01, variance / max(mean * (1 - mean), 1e-6)))

    def _split(self) -> Criterion:
        """Sequential test of the sample ratio: Lindon & Malek, Anytime-valid inference for
        multinomial count data (NeurIPS 2022), with two variants of equal size."""
        log_e = split_evidence(self.assigned[A], self.assigned[B])
        broken = log_e >= -math.log(SPLIT_ALPHA)
        p = p_value(log_e)
        return Criterion(
            "split",
            INCONCLUSIVE if broken else PASS,
            f"{self.assigned[A]:,} users have a, {self.assigned[B]:,} b, of halves"
            f" (p = {p:.2g}, broken up to {SPLIT_ALPHA:g}).",
            {"a": self.assigned[A], "b": self.assigned[B], "p": p},
        )

    def _sound(self) -> Criterion:
        return Criterion(
            "values",
            INCONCLUSIVE if self.invalid else PASS,
            f"{self.invalid} values of the metric are not between 0 and 1.",
            {"invalid": self.invalid},
        )

    def _harms(self) -> list[Criterion]:
        """The rollout's tests for harm; here nothing has to be shown in favour."""
        found = [spike(self._guardrails, name) for name in SPIKES]
        found += [compared(self._guardrails, name, -1) for name in COMPARED if name != QUALITY]
        return [replace(one, name=f"guardrail/{one.name}") for one in found]

    def _metric(self) -> list[Criterion]:
        means = {variant: _mean(votes) for variant, votes in self.values.items()}
        found = []
        for better, worse in ((A, B), (B, A)):
            peak, alpha = self._better[better].peak, self.plan.alpha / 2
            numbers = {f"mean_{one}": mean for one, mean in means.items() if mean is not None}
            found.append(
                Criterion(
                    f"metric/{better}",
                    PASS if peak >= -math.log(alpha) else INCONCLUSIVE,
                    f"{better} ({_text(means[better])}) better than {worse}"
                    f" ({_text(means[worse])}): p = {p_value(peak):.2g}, shown up to {alpha:g}.",
                    {**numbers, "p": p_value(peak), "alpha": alpha},
                )
            )
        return found


def split_evidence(a: int, b: int) -> float:
    """Logarithm of the evidence that users are not split into halves: the likelihood ratio of the
    beta-binomial with weight ``SPLIT_WEIGHT`` to the fair coin, a martingale in their order."""
    half = SPLIT_WEIGHT / 2

    def log_beta(one: float, other: float) -> float:
        return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)

    return log_beta(half + a, half + b) - log_beta(half, half) + (a + b) * math.log(2)


def _mean(votes: Mapping[float, int]) -> float | None:
    count = sum(votes.values())
    return sum(value * n for value, n in votes.items()) / count if count else None


def _text(mean: float | None) -> str:
    return "none" if mean is None else f"{mean:.3f}"
