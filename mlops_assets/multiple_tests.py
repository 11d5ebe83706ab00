"""Corrections for looking at many p values at once."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method (1979), in the same order.

    Family-wise, whatever the tests have to do with each other.
    """
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]
