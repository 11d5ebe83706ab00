"""How the requests of one arm ended, in counters: a request costs the same however many came.

Latencies are counted on a grid of one percent, scores on one of a thousandth.
"""

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate

from mlops_assets.serving.records.observations import Observation
from mlops_assets.serving.rollout.sequential import Tally

LOG_STEP = math.log(1.01)
SCORE_DIGITS = 3


@dataclass(slots=True)
class ArmStatistics:
    """Counts of one arm; the same requests in any order give the same counts."""

    requests: int = 0
    failed: int = 0
    empty: int = 0
    refused: int = 0
    non_finite: int = 0
    """Requests with a latency or a score that is no number, or out of bounds."""
    latencies: Counter[int] = field(default_factory=Counter)
    """Of answers, by steps of one percent of a millisecond's multiple."""
    losses: Counter[float] = field(default_factory=Counter)
    """1 - quality of the answers that were scored."""

    def add(self, observation: Observation) -> None:
        """Count one request. What failed has no answer: neither its latency nor its text counts."""
        self.requests += 1
        sound, quality = observation.sound, observation.quality
        self.non_finite += not sound
        if observation.failed:
            self.failed += 1
            return
        self.empty += observation.empty
        self.refused += observation.refused
        if not sound:
            return
        self.latencies[latency_step(observation.latency_ms)] += 1
        if quality is not None:
            self.losses[round(1 - quality, SCORE_DIGITS)] += 1

    def merge(self, other: "ArmStatistics") -> None:
        """Add the counts of other requests of the same arm."""
        self.requests += other.requests
        self.failed += other.failed
        self.empty += other.empty
        self.refused += other.refused
        self.non_finite += other.non_finite
        self.latencies.update(other.latencies)
        self.losses.update(other.losses)

    @property
    def answered(self) -> int:
        """Requests that got an answer."""
        return self.requests - self.failed

    def speed(self) -> "Latencies":
        """The latencies as they are now, to be asked many things."""
        steps = sorted(self.latencies)
        return Latencies(steps, list(accumulate(self.latencies[step] for step in steps)))

    def quality(self) -> float | None:
        """Mean score; None where nothing was scored."""
        scored = self.losses.total()
        return 1 - _total(self.losses) / scored if scored else None

    def loss_spread(self) -> float:
        """Variance of the losses as a share of that of right and wrong with the same mean."""
        scored = self.losses.total()
        if scored < 2:
            return 1.0
        mean = _total(self.losses) / scored
        variance = sum(count * (loss - mean) ** 2 for loss, count in self.losses.items()) / scored
        return min(1.0, max(variance / (mean * (1 - mean)), 0.01)) if 0 < mean < 1 else 1.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """A distribution of latencies on the grid."""

    steps: list[int]
    at_most: list[int]
    """How many answers each step, or a smaller one, was enough for."""

    @property
    def answers(self) -> int:
        """How many there are."""
        return self.at_most[-1] if self.at_most else 0

    def as_slow_as(self, step: int) -> int:
        """Answers that took as long as a step of the grid, or longer."""
        below = bisect_left(self.steps, step)
        return self.answers - (self.at_most[below - 1] if below else 0)

    def quantile_step(self, share: float) -> int | None:
        """The smallest step that ``share`` of the answers do not exceed; None without answers."""
        if not self.steps:
            return None
        return self.steps[bisect_left(self.at_most, share * self.answers)]

    def quantile_ms(self, share: float) -> float | None:
        """The latency that ``share`` of the answers do not exceed, within one percent."""
        step = self.quantile_step(share)
        return None if step is None else math.exp(step * LOG_STEP)


def latency_step(latency_ms: float) -> int:
    """Step of the grid that a latency falls on; all below a tenth of a millisecond on one."""
    return math.ceil(math.log(max(latency_ms, 0.1)) / LOG_STEP)


def ratio_steps(ratio: float) -> int:
    """How many steps of the grid a ratio of two latencies makes."""
    return round(math.log(ratio) / LOG_STEP)


def shares(yes: int, of: int) -> Tally:
    """``yes`` ones and zeros for the rest."""
    return {1.0: yes, 0.0: of - yes}


def _total(tally: Tally) -> float:
    return sum(value * count for value, count in tally.items())
