"""Evidence on two streams that may be looked at after every block, whatever the allocation.

Values lie in [0, 1] and more is worse: a failed request, an answer slower than a threshold, a
loss of quality. The streams come in blocks of requests that ended at the same time. With n and m
of them, means a and b, and the null hypothesis b <= a + margin (or >=), the e-value of a block is

    product over the control's y of   1 - (L / n) (y - r)
    times that over the candidate's of 1 + (L / m) (y - r - margin)

with L >= 0 (or <= 0) and r chosen before the block is seen. Its expectation is at most 1 under
the null hypothesis: by the inequality of the means it is at most the (n + m)-th power of
1 + L (b - a - margin) / (n + m). So the product over blocks is a test supermartingale, and by
Ville's inequality (1939) it ever reaches 1 / alpha with a probability of at most alpha, however
often it is looked at, whatever the sizes of the blocks and however both means drift together.

For right and wrong the best L and r make it the e-value of Turner, Ly & Gruenwald (Generic
e-variables for exact sequential k-sample tests, J. Stat. Plan. Inference 230, 2024), with a
margin that of Turner & Gruenwald (Stat. Prob. Letters 198, 2023); for other values in [0, 1] it is
a bet in the sense of Waudby-Smith & Ramdas (JRSS B 86, 2024). Pairs that fail together, as a
mirrored request and its original do, only make it more careful.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Tally = Mapping[float, int]
"""How often each value in [0, 1] was seen."""

GRID = (0.01, 0.03, 0.1, 0.4, 0.8)
"""Excesses that are bet on, beyond what is tolerated; the evidence is their mean."""
RESTART_EVERY = 250
"""Requests of the candidate after which the search begins anew, beside the old one."""
HOPES = (1.0, 0.5)
"""What non-inferiority bets on: the candidate as expected, and half way to the margin."""
ROUNDS = 3
"""Of the iteration for the best bet; more of them change what it wins by less than a percent."""
LEAST_FACTOR = 0.02
"""No value may take more than 98% of what was won."""
EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Expected:
    """What is bet on: means of the streams, before a block is seen."""

    control: float
    candidate: float
    spread: float = 1.0
    """Variance as a share of that of right and wrong with the same mean."""


@dataclass(frozen=True, slots=True)
class Bet:
    """A value y of a stream multiplies what was won by 1 + stake (y - at)."""

    control_stake: float
    control_at: float
    candidate_stake: float
    candidate_at: float

    def log_e(self, control: Tally, candidate: Tally) -> float:
        """Logarithm of a block's e-value."""
        return _log_won(control, self.control_stake, self.control_at) + _log_won(
            candidate, self.candidate_stake, self.candidate_at
        )


def best_bet(expected: Expected, margin: float, controls: int, candidates: int) -> Bet | None:
    """The bet against "candidate <= control + margin" if that is less than what is expected,
    against ">=" if it is more; None where there is nothing to win.

    It wins most in the long run if ``expected`` is true: r is the point of the null hypothesis
    nearest to it in Kullback-Leibler divergence.
    """
    gap = expected.candidate - expected.control - margin
    if not controls or not candidates or abs(gap) < EDGE:
        return None
    low, high = max(0.0, -margin) + EDGE, min(1.0, 1 - margin) - EDGE
    control, candidate, spread = expected.control, expected.candidate, expected.spread
    at = (controls * control + candidates * (candidate - margin)) / (controls + candidates)
    for _ in range(ROUNDS):
        at = min(max(at, low), high)
        noise = spread * at * (1 - at) / controls
        lean = gap / (noise + spread * (at + margin) * (1 - at - margin) / candidates)
        at = control + lean * noise
    at = min(max(at, low), high)
    stakes = -lean / controls, lean / candidates
    worst = max(_at_risk(stakes[0], at), _at_risk(stakes[1], at + margin))
    cut = min(1.0, (1 - LEAST_FACTOR) / worst)
    return Bet(stakes[0] * cut, at, stakes[1] * cut, at + margin)


class Excess:
    """Evidence that the candidate's mean exceeds the control's by more than ``tolerance``.

    A candidate may turn bad late, so every ``restart_every`` requests of it a part of what was set
    aside at the start is bet afresh: the j-th time 1 / (j (j + 1)) of it.
    """

    def __init__(
        self,
        tolerance: float = 0.0,
        grid: Sequence[float] = GRID,
        restart_every: float = RESTART_EVERY,
    ) -> None:
        self.tolerance = tolerance
        self.peak = 0.0
        """Largest logarithm of the evidence so far: it is shown from log(1 / alpha) on."""
        self._grid = grid
        self._restart_every = restart_every
        self._won = [-math.inf] * len(grid)
        self._starts = 0
        self._seen = 0

    def update(
        self, control: Tally, candidate: Tally, expected: float, spread: float = 1.0
    ) -> None:
        """Take in a block, with the control's mean as it was expected before."""
        controls, candidates = sum(control.values()), sum(candidate.values())
        if not self._starts or self._seen >= self._starts * self._restart_every:
            self._starts += 1
            share = -math.log(self._starts * (self._starts + 1))
            self._won = [_log_sum(won, share) for won in self._won]
        self._seen += candidates
        for index, more in enumerate(self._grid):
            worse = min(1.0, expected + self.tolerance + more)
            if worse <= expected + self.tolerance:
                continue
            bet = best_bet(Expected(expected, worse, spread), self.tolerance, controls, candidates)
            self._won[index] += bet.log_e(control, candidate) if bet else 0.0
        self.peak = max(self.peak, self.log_e)

    @property
    def log_e(self) -> float:
        """Logarithm of the evidence now."""
        total = math.log(1 / (self._starts + 1))
        for won in self._won:
            total = _log_sum(total, won - math.log(len(self._grid)))
        return total


class NonInferiority:
    """Evidence that the candidate's mean exceeds the control's by less than ``margin``.

    It never grows beyond the square of what is asked, so that a calm past does not outvote harm
    that came later: throwing won evidence away costs no validity.
    """

    def __init__(self, margin: float, alpha: float) -> None:
        self.margin = margin
        self.alpha = alpha
        self._won = [0.0] * len(HOPES)

    def update(self, control: Tally, candidate: Tally, expected: Expected) -> None:
        """Take in a block, with the means as they were expected before."""
        worst = min(1.0, expected.control + self.margin)
        if expected.candidate >= worst:
            return
        sizes = sum(control.values()), sum(candidate.values())
        for index, hope in enumerate(HOPES):
            candidates = hope * expected.candidate + (1 - hope) * worst
            hoped = Expected(expected.control, candidates, expected.spread)
            bet = best_bet(hoped, self.margin, *sizes)
            if bet:
                grown = self._won[index] + bet.log_e(control, candidate)
                self._won[index] = min(grown, -2 * math.log(self.alpha))

    @property
    def log_e(self) -> float:
        """Logarithm of the evidence now: the mean over what is bet on."""
        total = -math.inf
        for won in self._won:
            total = _log_sum(total, won - math.log(len(HOPES)))
        return total


def p_value(log_e: float, design_effect: float = 1.0) -> float:
    """Always valid: the smallest alpha at which this evidence would do.

    A ``design_effect`` above 1 asks for so many times its logarithm. That errs on the safe side
    whatever it is and however it changes, and where requests of one user resemble each other it is
    what makes up for their number.
    """
    return math.exp(min(0.0, -log_e / design_effect))


def _log_won(tally: Tally, stake: float, at: float) -> float:
    won = 0.0
    for value, count in tally.items():
        if count:
            won += count * math.log1p(stake * (value - at))
    return won


def _at_risk(stake: float, at: float) -> float:
    """The most that a value in [0, 1] can take."""
    return stake * at if stake > 0 else -stake * (1 - at)


def _log_sum(one: float, other: float) -> float:
    """log(exp(one) + exp(other))"""
    high, low = max(one, other), min(one, other)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
