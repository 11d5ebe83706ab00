"""One-sided tests of two systems on the same items.

Scores that are right or wrong (0 and 1) are compared by exact or score tests on the items on
which only one system is right; other scores by a paired bootstrap of the mean difference. Where
few items differ the bootstrap alone promises too much, so what speaks for a candidate is asked
twice: it has to hold too when the two systems' scores are exchanged at random, or when one item
more is lost.
``won`` and ``lost`` are the items on which only ours, only theirs is right.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Scores = np.ndarray[Any, np.dtype[np.float64]]

NORMAL = NormalDist()
STEPS = 30  # of a bisection over [-1, 1]: 2e-9
CHUNK = 2_000_000  # numbers drawn at a time: 16 MB


@dataclass(frozen=True)
class Difference:
    """Our mean score minus theirs on the same items, and the tests of it."""

    items: int
    ours: float
    theirs: float
    binary: bool
    won: int
    """Items on which our score is the higher one."""
    lost: int
    spread: float
    """Standard deviation of the differences of single items."""
    draws: Any = None
    """Bootstrapped means of the differences, sorted; None for scores of 0 and 1."""
    differences: Any = None
    """Those of single items; None for scores of 0 and 1."""
    seed: int = 0
    """What the draws were made with."""

    @property
    def value(self) -> float:
        """Our mean minus theirs; for scores of 0 and 1 without the rounding of two means."""
        return (self.won - self.lost) / self.items if self.binary else self.ours - self.theirs

    @property
    def test(self) -> str:
        """What tests it, for people."""
        return "McNemar, Tango" if self.binary else "paired bootstrap"

    def p_better(self) -> float:
        """p value of "not better": McNemar's exact test (1947), else the larger of the
        bootstrap's and the paired permutation test's (Fisher 1935)."""
        if not self.binary:
            return max(_share(self.draws <= 0), self._p_exchanged())
        from scipy.stats import binomtest

        apart = self.won + self.lost
        if not apart:
            return 1.0
        return float(binomtest(self.won, apart, 0.5, alternative="greater").pvalue)

    def p_not_inferior(self, margin: float) -> float:
        """p value of "worse by ``margin`` or more"; small where that can be ruled out.

        The bootstrap is given one item more, lost as far as can be: without it, items of which
        none was lost would rule out any loss, however few they are.
        """
        if not self.binary:
            import numpy as np

            worst = min(-1.0, float(self.differences.min()))
            careful = np.append(self.differences, worst)
            return _share(bootstrap_means(careful, len(self.draws), self.seed) <= -margin)
        return _upper_tail(tango(self.won, self.lost, self.items, -margin))

    def p_worse(self, margin: float) -> float:
        """p value of "worse by ``margin`` at most"; small where the loss is surely larger."""
        if not self.binary:
            return _share(self.draws >= -margin)
        return _upper_tail(-tango(self.won, self.lost, self.items, -margin))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The differences that neither one-sided test at ``alpha`` rejects."""
        if not self.binary:
            last = len(self.draws) - 1
            edge = math.floor(alpha * last)
            return float(self.draws[edge]), float(self.draws[last - edge])
        z = NORMAL.inv_cdf(1 - alpha)
        return self._bound(z), self._bound(-z)

    def detectable_loss(self, margin: float, alpha: float, power: float = 0.8) -> float:
        """About the smallest true loss that ``p_worse`` finds at ``alpha`` with this power.

        By the normal approximation, with the spread that was seen, at least that of one item.
        """
        error = max(self.spread, 1 / math.sqrt(self.items)) / math.sqrt(self.items)
        return min(1.0, margin + (NORMAL.inv_cdf(1 - alpha) + NORMAL.inv_cdf(power)) * error)

    def _bound(self, z: float) -> float:
        """The difference at which Tango's statistic is ``z``, which falls as that one grows."""
        low, high = -1.0, 1.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            above = tango(self.won, self.lost, self.items, middle) > z
            low, high = (middle, high) if above else (low, middle)
        return (low + high) / 2

    def _p_exchanged(self) -> float:
        """How often the mean is as large when each item's two scores are exchanged by a coin."""
        from scipy.stats import permutation_test

        apart = self.differences[self.differences != 0]
        if not apart.size:
            return 1.0
        found = permutation_test(
            (apart,),
            lambda drawn, axis: drawn.mean(axis=axis),
            vectorized=True,
            permutation_type="samples",
            n_resamples=len(self.draws),
            batch=max(1, CHUNK // apart.size),
            alternative="greater",
            rng=self.seed,
        )
        return float(found.pvalue)


def compare(ours: "Scores", theirs: "Scores", resamples: int, seed: int) -> Difference:
    """Compare the scores of two systems, item by item: finite numbers in the same order.

    Raises ValueError for arrays that are empty, of two lengths or not finite.
    """
    import numpy as np

    if ours.shape != theirs.shape or not ours.size:
        raise ValueError("scores of the same items are needed")
    differences = ours - theirs
    if not np.isfinite(differences).all():
        raise ValueError("a score is not finite")
    binary = all(bool(((one == 0) | (one == 1)).all()) for one in (ours, theirs))
    return Difference(
        items=len(ours),
        ours=float(ours.mean()),
        theirs=float(theirs.mean()),
        binary=binary,
        won=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        spread=float(differences.std()),
        draws=None if binary else bootstrap_means(differences, resamples, seed),
        differences=None if binary else differences,
        seed=seed,
    )


def tango(won: int, lost: int, items: int, difference: float) -> float:
    """Tango's score statistic (Statistics in Medicine 17, 1998) of a difference of paired shares.

    Standard normal where the true difference is ``difference`` (-1 to 1); without a margin its
    square is McNemar's statistic. Large when ours is better than that.
    """
    a = 2 * items
    b = -won - lost + (2 * items - won + lost) * difference
    c = -lost * difference * (1 - difference)
    # Share of items that are lost, at its likeliest under the hypothesis.
    q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = items * (2 * q + difference * (1 - difference))
    distance = won - lost - items * difference
    if variance <= 1e-12:
        return 0.0 if abs(distance) < 1e-9 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def bootstrap_means(differences: "Scores", resamples: int, seed: int) -> "Scores":
    """Means of as many items, drawn again with replacement (Efron 1979), sorted."""
    import numpy as np

    dice, items = np.random.default_rng(seed), len(differences)
    size = max(1, CHUNK // items)
    means = [
        differences[dice.integers(items, size=(min(size, left), items))].mean(axis=1)
        for left in range(resamples, 0, -size)
    ]
    return np.sort(np.concatenate(means))


def _share(wrong: Any) -> float:
    """Share of draws on the wrong side; never 0, because draws are finitely many."""
    return (1 + int(wrong.sum())) / (1 + len(wrong))


def _upper_tail(z: float) -> float:
    """Probability that a standard normal exceeds ``z``."""
    return 0.5 * math.erfc(z / math.sqrt(2))
