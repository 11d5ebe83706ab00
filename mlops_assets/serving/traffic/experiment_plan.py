"""How many users an experiment takes, said before it starts."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from mlops_assets.artifacts import LineageError
from mlops_assets.serving.rollout.sequential import Expected, best_bet

SCALES = (0.5, 1.0, 2.0)
"""Effects that are bet on, in multiples of the planned one; the evidence is their mean."""
MOST_USERS = 10**9


@dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment wants to find, and how surely.

    Raises LineageError for a plan that no number of users could carry out.
    """

    baseline: float
    """Mean of the metric now, between 0 and 1."""
    minimum_effect: float
    """Smallest difference of the means that is worth finding (MDE), up or down."""
    alpha: float = 0.05
    """Probability that a difference is found where there is none, however often one looks."""
    power: float = 0.8
    """Probability that a difference of ``minimum_effect`` is found with the users needed."""

    def __post_init__(self) -> None:
        numbers = (self.baseline, self.minimum_effect, self.alpha, self.power)
        inside = all(math.isfinite(one) and 0 < one < 1 for one in numbers)
        if not inside or self.baseline + self.minimum_effect >= 1:
            raise LineageError(
                f"An experiment on a metric of {self.baseline:g} cannot look for a difference of"
                f" {self.minimum_effect:g} with alpha {self.alpha:g} and power {self.power:g}.",
                "State all four between 0 and 1, and an effect that stays below 1.",
            )

    @property
    def users_needed(self) -> int:
        """Users with a value in each variant until the planned effect is found with this power.

        The logarithm of the evidence grows about normally, by g a pair of users with variance v; it
        has to pass ln(4 k / alpha): two directions, half kept back, k effects bet on. For values
        other than 0 and 1 this is on the safe side.
        """
        better = Expected(self.baseline, self.baseline + self.minimum_effect)
        bet = best_bet(better, 0.0, 1, 1)
        if bet is None:
            raise LineageError("The effect is too small to bet on.", "State a larger one.")
        growth, variance = 0.0, 0.0
        for mean, arm in ((better.control, 0), (better.candidate, 1)):
            won = [bet.log_e(*(({value: 1}, {}), ({}, {value: 1}))[arm]) for value in (0.0, 1.0)]
            growth += mean * won[1] + (1 - mean) * won[0]
            variance += mean * (1 - mean) * (won[1] - won[0]) ** 2
        z = NormalDist().inv_cdf(self.power) * math.sqrt(variance)
        target = math.log(4 * len(SCALES) / self.alpha)
        return math.ceil(((z + math.sqrt(z * z + 4 * growth * target)) / (2 * growth)) ** 2)


def minimum_detectable_effect(
    baseline: float, users: int, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest effect for which ``users`` with a value in each variant are enough.

    Raises LineageError where they are too few for any.
    """
    low, high = 1e-5, (1 - baseline) * 0.999
    if users < ExperimentPlan(baseline, high, alpha, power).users_needed:
        raise LineageError(
            f"With {users:,} users in each variant no difference of a metric of {baseline:g} can"
            " be found.",
            "Give the experiment more users or more time.",
        )
    while high - low > 1e-5:
        middle = (low + high) / 2
        enough = ExperimentPlan(baseline, middle, alpha, power).users_needed <= users
        low, high = (low, middle) if enough else (middle, high)
    return high
