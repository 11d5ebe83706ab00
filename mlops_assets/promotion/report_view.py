"""What an approver is shown of an evaluation report: headline, scores by system and by slice.

The report was verified when it was read. A number that is missing or not finite is shown as
missing; nothing is decided here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float]
NAMES = {
    "tuned": "Candidate",
    "champion": "Champion in production",
    "base": "Base model",
    "majority": "Commonest answer",
    "tfidf": "TF-IDF + linear SVM",
}
RIVALS = {"champion": "the champion", "base": "its base model"}
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Headline:
    """The score that is named first. Scores are exact match on the test split, from 0 to 1."""

    items: int | None
    candidate: float | None
    interval: Interval | None
    """95%, of the candidate's score."""
    rival: float | None
    rival_name: str
    difference: float | None
    """Candidate minus rival, from -1 to 1."""
    difference_interval: Interval | None

    def __str__(self) -> str:
        shown = f"{percent(self.candidate)} of {plain(self.items)} test requests"
        return shown + (f" ({percents(self.interval)})" if self.interval else "")

    @property
    def against(self) -> str:
        """The difference in points with its interval, for one line."""
        shown = f"{points(self.difference)} points"
        if self.difference_interval:
            low, high = map(points, self.difference_interval)
            shown += f" ({low} to {high})"
        return shown


@dataclass(frozen=True)
class SystemScore:
    """One system's exact match."""

    name: str
    label: str
    score: float | None
    interval: Interval | None


@dataclass(frozen=True)
class SliceScore:
    """Exact match within one part of the test split."""

    value: str
    count: int | None
    candidate: float | None
    rival: float | None
    difference: float | None


@dataclass(frozen=True)
class Movement:
    """How the answers to one suite moved against the rival's, by one metric."""

    suite: str
    metric: str
    candidate: float | None
    """Mean score; None where the report has none, as for the test split."""
    rival: float | None
    better: int
    worse: int
    same: int


def headline(report: Mapping[str, Any]) -> Headline:
    """The candidate's exact match beside the champion's, or the base model's without one."""
    rival = _rival(report)
    items = _at(report, "items")
    return Headline(
        items=items if isinstance(items, int) else None,
        candidate=_number(report, "exact_match", "tuned"),
        interval=_interval(report, "intervals", "exact_match", "tuned"),
        rival=_number(report, "exact_match", rival),
        rival_name=RIVALS[rival],
        difference=_number(report, "differences", rival, "difference"),
        difference_interval=_interval(report, "differences", rival, "interval"),
    )


def systems(report: Mapping[str, Any]) -> tuple[SystemScore, ...]:
    """Every system that was measured, the candidate first."""
    measured = [name for name in NAMES if _number(report, "exact_match", name) is not None]
    return tuple(
        SystemScore(
            name,
            NAMES[name],
            _number(report, "exact_match", name),
            _interval(report, "intervals", "exact_match", name),
        )
        for name in measured
    )


def slices(report: Mapping[str, Any]) -> dict[str, list[SliceScore]]:
    """By slicing dimension, its values in the report's order."""
    found = _at(report, "slices")
    if not isinstance(found, Mapping):
        return {}
    rival = _rival(report)
    return {
        str(dimension): [_slice(str(value), scores, rival) for value, scores in values.items()]
        for dimension, values in found.items()
        if isinstance(values, Mapping)
    }


def movements(report: Mapping[str, Any]) -> tuple[Movement, ...]:
    """What got better and what got worse, by suite and metric, as the report counts it."""
    rival = _rival(report)
    counted = _at(report, "changes", "suites")
    return tuple(
        Movement(
            str(suite),
            str(metric),
            _number(report, "suites", suite, "metrics", metric, "tuned"),
            _number(report, "suites", suite, "metrics", metric, rival),
            *(int(_number(counts, name) or 0) for name in ("better", "worse", "same")),
        )
        for suite, found in (counted.items() if isinstance(counted, Mapping) else ())
        for metric, counts in (_at(found, "metrics") or {}).items()
    )


def percent(value: float | None) -> str:
    """A share as ``84.1%``; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.1%}"


def percents(interval: Interval) -> str:
    """An interval of shares."""
    return f"{percent(interval[0])} to {percent(interval[1])}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "\N{EN DASH}" if value is None else f"{100 * value:+.1f}".replace("-", MINUS)


def number(value: float | None) -> str:
    """A score that need not be a share, with three digits."""
    return "\N{EN DASH}" if value is None else f"{value:.3f}"


def plain(value: int | None) -> str:
    """A count with thousands separated."""
    return "\N{EN DASH}" if value is None else f"{value:,}"


def _slice(value: str, scores: Any, rival: str) -> SliceScore:
    count = _at(scores, "count")
    ours, theirs = (_number(scores, "exact_match", name) for name in ("tuned", rival))
    difference = None if ours is None or theirs is None else ours - theirs
    return SliceScore(value, count if isinstance(count, int) else None, ours, theirs, difference)


def _rival(report: Mapping[str, Any]) -> str:
    champion = report.get("champion")
    return "base" if champion in (None, report.get("candidate")) else "champion"


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(value: Any, *path: str) -> float | None:
    found = _at(value, *path)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def _interval(value: Any, *path: str) -> Interval | None:
    found = _at(value, *path)
    if not isinstance(found, list) or len(found) != 2:
        return None
    low, high = (_number({"": bound}, "") for bound in found)
    return None if low is None or high is None else (low, high)
