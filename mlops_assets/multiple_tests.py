"""Corrections for looking at many p values at once."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down method (1979), in the same order.

    Family-wise, whatever the tests have to do with each other. statsmodels' `multipletests`
    says the same, but collects garbage at every call: 20 ms in a process of ours.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
