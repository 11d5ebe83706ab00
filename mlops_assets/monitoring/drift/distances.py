"""How far two samples lie apart, and whether chance explains it, from their sketches.

Both effects are distances from 0 to 1 with the same reading, the largest share of requests
that would have to change for the samples to agree: the Kolmogorov-Smirnov distance for
numbers, the total variation distance for classes. Both are compared with one threshold.

The p value of classes comes from a seeded permutation test of the distance itself, because
the chi-square approximation breaks with many rare classes (77 intents in 200 requests).
Shuffling the rows between both sides is a draw of counts without replacement, whose time does
not depend on how many rows there are.
The population stability index is computed for readers who know it and decides nothing: at
200 records it exceeds its customary 0.1 in two windows of five where nothing has changed.
"""

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from mlops_assets.monitoring.drift.design_effect import effective
from mlops_assets.monitoring.drift.sketches import Sketch, rank_error, size

if TYPE_CHECKING:
    from datasketches import kll_doubles_sketch

PERMUTATIONS, ENOUGH = 9_999, 50
"""Most shuffles, and how many as far apart as what was found tell that there is no drift."""
BATCHES = (199, 800, 9_000)
PSI_BINS = 10
PSI_FLOOR = 1e-4  # share that an empty bin is given, so that the logarithm exists


def compare(
    reference: Sketch, current: Sketch, seed: int, design_effect: float = 1.0
) -> tuple[float, float]:
    """The distance of two sketches of one column and its p value; NaN where one is empty.

    The p value counts so many of the current values as one (``design_effect``).
    """
    if not size(reference) or not size(current):
        return math.nan, math.nan
    if isinstance(reference, Counter) and isinstance(current, Counter):
        return _compare_classes(reference, current, seed, design_effect)
    return _compare_numbers(reference, current, design_effect)


def psi(reference: Sketch, current: Sketch) -> float:
    """Population stability index: over the classes of both sides, or over ten bins that the
    reference fills equally; NaN where one is empty."""
    if not size(reference) or not size(current):
        return math.nan
    if isinstance(reference, Counter) and isinstance(current, Counter):
        names = reference | current
        before = [reference[name] / reference.total() for name in names]
        return _psi(before, [current[name] / current.total() for name in names])
    return _psi_of_numbers(reference, current)


def _psi_of_numbers(reference: "kll_doubles_sketch", current: "kll_doubles_sketch") -> float:
    shares = [index / PSI_BINS for index in range(1, PSI_BINS)]
    edges = sorted(set(reference.get_quantiles(shares, inclusive=True)))
    return _psi(*(side.get_pmf(edges, inclusive=True) for side in (reference, current)))


def _compare_numbers(
    reference: "kll_doubles_sketch", current: "kll_doubles_sketch", design_effect: float
) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance and its asymptotic p value.

    By as much as the sketches may err the distance is made smaller for the p value.
    """
    import numpy as np

    smaller = min(reference, current, key=lambda side: side.num_retained)
    # Between two values of one side the other's distribution can only rise: it is farthest away
    # at one of them, or just before it.
    points = sorted({value for value, _ in smaller})
    effect = max(
        float(
            np.abs(
                np.subtract(
                    reference.get_cdf(points, inclusive=inclusive),
                    current.get_cdf(points, inclusive=inclusive),
                )
            ).max()
        )
        for inclusive in (True, False)
    )
    certain = max(0.0, effect - rank_error(reference) - rank_error(current))
    return effect, _kolmogorov_p(certain, reference.n, current.n / design_effect)


def _kolmogorov_p(distance: float, n: float, m: float) -> float:
    """Two-sided p of the limiting distribution, with Stephens' correction (1970) for few values.

    Values that are equal make it larger than it is.
    """
    from scipy.special import kolmogorov

    root = math.sqrt(n * m / (n + m))
    return float(kolmogorov((root + 0.12 + 0.11 / root) * distance))


def _compare_classes(
    reference: Counter[str], current: Counter[str], seed: int, design_effect: float
) -> tuple[float, float]:
    """Total variation distance and its permutation p value, at least 1e-4.

    The shuffling stops after ``ENOUGH`` that are as far apart: p is then ``ENOUGH`` by the number
    of them, which is as right (Besag and Clifford 1991).
    """
    import numpy as np

    names = sorted(reference | current)
    before, now = (np.array([side[name] for name in names]) for side in (reference, current))
    observed = float(_total_variation(now[None, :], before + now)[0])
    drawn = _thinned(now, effective(current.total(), design_effect))
    pooled = before + drawn
    rng, done, as_far = np.random.default_rng(seed), 0, 0
    for batch in BATCHES:
        shuffled = rng.multivariate_hypergeometric(
            pooled, drawn.sum(), size=batch, method="marginals"
        )
        far = np.flatnonzero(_total_variation(shuffled, pooled) >= observed - 1e-12)
        if as_far + len(far) >= ENOUGH:
            return observed, ENOUGH / (done + int(far[ENOUGH - as_far - 1]) + 1)
        done, as_far = done + batch, as_far + len(far)
    return observed, (1 + as_far) / (1 + PERMUTATIONS)


def _thinned(counts: Any, total: int) -> Any:
    """Counts in the same proportions that add up to ``total``, by the largest remainders."""
    import numpy as np

    if total == counts.sum():
        return counts
    shares = counts * (total / counts.sum())
    thinned = shares.astype(np.int64)
    largest = np.argsort(thinned - shares, kind="stable")
    thinned[largest[: total - thinned.sum()]] += 1
    return thinned


def _total_variation(drawn: Any, pooled: Any) -> Any:
    """Distance of each row of ``drawn`` (counts of one side) from the rest of ``pooled``."""
    n = drawn[0].sum()
    return abs(drawn / n - (pooled - drawn) / (pooled.sum() - n)).sum(axis=1) / 2


def _psi(before: list[float], now: list[float]) -> float:
    floored = [(max(a, PSI_FLOOR), max(b, PSI_FLOOR)) for a, b in zip(before, now, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in floored)
