"""The part of ``report.json`` that says what got better and what got worse, by counts."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlops_assets.evaluation.comparison import Comparison, Difference
from mlops_assets.evaluation.records import TEST


def summarise_changes(compared: Iterable[Comparison]) -> dict[str, Any]:
    """Counts by suite, the test split first: for each metric, and by slice for the leading one.

    ``{suite: {"leading": metric, "metrics": {metric: counts}, "slices": {dimension: {value:
    counts}}}}``, where counts has ``better``, ``worse``, ``same`` and ``unscored``.
    """
    ordered = sorted(compared, key=lambda one: (one.suite != TEST, one.suite))
    return {one.suite: _summary(one) for one in ordered if one.pairs}


def _summary(one: Comparison) -> dict[str, Any]:
    metrics = one.metrics
    leading = next(iter(metrics), "")
    return {
        "leading": leading,
        "metrics": {name: _counts(found) for name, found in metrics.items()},
        "slices": {
            dimension: {
                value: _counts(found[leading])
                for value, found in values.items()
                if leading in found
            }
            for dimension, values in one.slices.items()
        },
    }


def _counts(found: Difference) -> Mapping[str, int]:
    return {name: getattr(found, name) for name in ("better", "worse", "same", "unscored")}
