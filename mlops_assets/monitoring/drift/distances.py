"""How far two samples lie apart, and whether chance explains it.

Both effects are distances from 0 to 1 with the same reading, the largest share of requests
that would have to change for the samples to agree: the Kolmogorov-Smirnov distance for
numbers, the total variation distance for classes. Both are compared with one threshold.

The p value of classes comes from a seeded permutation test of the distance itself, because
the chi-square approximation breaks with many rare classes (77 intents in 200 requests).
The population stability index is computed for readers who know it and decides nothing: at
200 records it exceeds its customary 0.1 in two windows of five where nothing has changed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

PERMUTATIONS = 9_999
PSI_BINS = 10
PSI_FLOOR = 1e-4  # share that an empty bin is given, so that the logarithm exists


def compare_numbers(reference: Sequence[float], current: Sequence[float]) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance and its asymptotic two-sided p value; NaN when empty."""
    if not reference or not current:
        return math.nan, math.nan
    from scipy.stats import ks_2samp

    result = ks_2samp(reference, current, method="asymp")
    return float(result.statistic), float(result.pvalue)


def compare_classes(
    reference: Sequence[str], current: Sequence[str], seed: int
) -> tuple[float, float]:
    """Total variation distance and its permutation p value (at least 1e-4); NaN when empty."""
    if not reference or not current:
        return math.nan, math.nan
    import numpy as np

    before, now = Counter(reference), Counter(current)
    pooled = np.array([before[name] + now[name] for name in sorted(before | now)])
    drawn = np.array([now[name] for name in sorted(before | now)])
    observed = _total_variation(drawn[None, :], pooled)[0]
    # Shuffling the rows between both sides is a draw without replacement from the pool.
    shuffled = np.random.default_rng(seed).multivariate_hypergeometric(
        pooled, len(current), size=PERMUTATIONS, method="marginals"
    )
    as_far = int((_total_variation(shuffled, pooled) >= observed - 1e-12).sum())
    return float(observed), (1 + as_far) / (1 + PERMUTATIONS)


def _total_variation(drawn: Any, pooled: Any) -> Any:
    """Distance of each row of ``drawn`` (counts of one side) from the rest of ``pooled``."""
    n = drawn[0].sum()
    return abs(drawn / n - (pooled - drawn) / (pooled.sum() - n)).sum(axis=1) / 2


def psi_of_classes(reference: Sequence[str], current: Sequence[str]) -> float:
    """Population stability index over the classes of both sides."""
    before, now = Counter(reference), Counter(current)
    names = before | now
    return _psi(
        [before[name] / max(len(reference), 1) for name in names],
        [now[name] / max(len(current), 1) for name in names],
    )


def psi_of_numbers(reference: Sequence[float], current: Sequence[float]) -> float:
    """Population stability index over ten equally filled bins of the reference."""
    if not reference or not current:
        return math.nan
    import numpy as np

    edges = np.unique(np.quantile(reference, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    shares = [
        np.bincount(np.searchsorted(edges, side, "left"), minlength=len(edges) + 1) / len(side)
        for side in (reference, current)
    ]
    return _psi(list(map(float, shares[0])), list(map(float, shares[1])))


def _psi(before: Sequence[float], now: Sequence[float]) -> float:
    floored = [(max(a, PSI_FLOOR), max(b, PSI_FLOOR)) for a, b in zip(before, now, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in floored)
