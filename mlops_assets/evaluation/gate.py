"""The absolute floor: what a candidate must reach before anybody compares it.

The floors stand in the report itself, so that whoever reads it (the asset check, the
promotion stage, a person) applies the same ones. A number that is missing or not finite is
no verdict, and no verdict never passes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Floor:
    """One requirement, what was measured, and whether that suffices (None: no verdict)."""

    name: str
    measured: float | None
    required: float | None
    passed: bool | None

    @property
    def verdict(self) -> str:
        """``passed``, ``failed`` or ``no verdict``."""
        return "no verdict" if self.passed is None else ("passed" if self.passed else "failed")

    def __str__(self) -> str:
        if self.measured is None or self.required is None:
            return f"{self.name}: {self.verdict}, a number is missing"
        return f"{self.name}: {self.measured:.1%} against {self.required:.1%}, {self.verdict}"


def check_floors(report: Mapping[str, Any]) -> list[Floor]:
    """Every floor of ``report``. The candidate passes when each one's ``passed`` is True."""
    exact = _number(report, "exact_match", "tuned")
    floors = [_at_least("exact match", exact, _number(report, "floors", "minimum_exact_match"))]
    if _value(report, "answers") == "text":  # neither JSON nor classes to ask for
        return floors
    floors.append(
        _at_least(
            "valid JSON",
            _number(report, "valid_json", "tuned"),
            _number(report, "floors", "minimum_valid_json"),
        )
    )
    if _value(report, "floors", "beat_majority") is not False:
        majority = _number(report, "exact_match", "majority")
        known = exact is not None and majority is not None
        passed = exact > majority if known else None  # type: ignore[operator]
        floors.append(Floor("exact match above majority", exact, majority, passed))
    return floors


def passes(floors: list[Floor]) -> bool:
    """Whether every floor was reached. No floor at all is no verdict, hence False."""
    return bool(floors) and all(floor.passed is True for floor in floors)


def _at_least(name: str, measured: float | None, required: float | None) -> Floor:
    if measured is None or required is None:
        return Floor(name, measured, required, None)
    return Floor(name, measured, required, measured >= required)


def _value(report: Mapping[str, Any], *path: str) -> Any:
    value: Any = report
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(report: Mapping[str, Any], *path: str) -> float | None:
    value = _value(report, *path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
