"""The three verdicts, and what a criterion of the gate is: read by evaluation and promotion.

A criterion passes, fails, or is inconclusive: a number that is missing, not finite or measured
on too few items decides nothing. Only a whole gate of passes is a pass.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"


@dataclass(frozen=True)
class Criterion:
    """One requirement on a candidate, its verdict, and the numbers that decided."""

    name: str
    """Stable and unique within a gate, such as ``floor/exact_match`` or ``slice/channel=chat``."""
    verdict: str
    """``PASS``, ``FAIL`` or ``INCONCLUSIVE``."""
    detail: str
    """The sentence for people: what was measured, against what."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What decided: JSON values, the finite ones alone."""


def overall(criteria: Iterable[Criterion]) -> str:
    """FAIL if any failed, else INCONCLUSIVE if any is or there is none, else PASS."""
    verdicts = {criterion.verdict for criterion in criteria}
    if FAIL in verdicts:
        return FAIL
    return PASS if verdicts == {PASS} else INCONCLUSIVE
