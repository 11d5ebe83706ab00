"""Shares as the benchmarks print them."""

from mlops_assets.metrics import wilson


def share(hits: int, of: int) -> str:
    """A share of some draws with its 95% interval (Wilson)."""
    low, high = wilson(hits, of) or (0.0, 1.0)
    return f"{hits / of:.1%} ({low:.1%} to {high:.1%})"
