"""What judge and people said, as numbers for the report: means, preferences and the vote.

A number stands only over a whole sample. What has no verdict makes the number None, never a mean
of the rest: an answer that the judge cannot read would else raise the score by being left out.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mlops_assets.evaluation.judge_agreement import Agreement
from mlops_assets.evaluation.judge_questions import Rubric
from mlops_assets.evaluation.judge_sample import OURS, RIVAL, Key
from mlops_assets.privacy import redact

WORST_SHOWN = 5


@dataclass(frozen=True)
class Opinion:
    """The level that one answer got, and why."""

    level: int
    reason: str


@dataclass(frozen=True)
class Preferred:
    """Which of two answers is better: 1 ours, 0 the other, 0.5 neither."""

    value: float
    consistent: bool
    """Whether both orders said the same."""


Opinions = Mapping[Key, Opinion | None]
Preferences = Mapping[Key, Preferred | None]


def whole_mean(values: Collection[float | None]) -> float | None:
    """The mean; None without any value or with one missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def mean_scores(opinions: Opinions, rubric: Rubric) -> dict[str, float | None]:
    """The mean level of each system, from 0 (the worst) to 1 (the best)."""
    return {
        system: whole_mean(
            [
                rubric.share(opinion.level) if opinion else None
                for key, opinion in opinions.items()
                if key[2] == system
            ]
        )
        for system in (OURS, RIVAL)
    }


def summarise_preferences(preferences: Preferences) -> dict[str, Any] | None:
    """How often ours is preferred; None without a champion or with a verdict missing."""
    known = [preferred for preferred in preferences.values() if preferred]
    if not known or len(known) < len(preferences):
        return None
    counted = Counter(preferred.value for preferred in known)
    return {
        "items": len(known),
        "mean": sum(preferred.value for preferred in known) / len(known),
        "better": counted[1.0],
        "worse": counted[0.0],
        "tie": counted[0.5],
        "inconsistent": sum(not preferred.consistent for preferred in known),
    }


def lowest(opinions: Opinions, best: int) -> list[dict[str, Any]]:
    """Our answers with the lowest levels below ``best``, and the judge's reasons, redacted."""
    ours = [
        (key[1], one)
        for key, one in opinions.items()
        if one and key[2] == OURS and one.level < best
    ]
    return [
        {"item": item, "level": opinion.level, "reason": redact(opinion.reason)[0]}
        for item, opinion in sorted(ours, key=lambda found: found[1].level)[:WORST_SHOWN]
    ]


def vote(
    agreement: Agreement | None, complete: bool, failures: Mapping[str, int], least: float
) -> tuple[bool, str]:
    """Whether the judge may have a say, and why: one sentence."""
    failed = "; ".join(f"{reason} ({count})" for reason, count in sorted(failures.items()))
    if agreement is None:
        return False, f"No verdict on some answers that people have scored: {failed}."
    if not complete:
        return False, f"No verdict on some answers of the sample: {failed}."
    if agreement.kappa is None or agreement.interval is None:
        return False, "Kappa is not defined: judge and people give all answers one level."
    low, high = agreement.interval
    said = f"kappa with people is {agreement.kappa:.2f} (95% interval {low:.2f} to {high:.2f})"
    if low < least:
        return False, f"Its {said}; the lower bound would have to reach {least:.2f}."
    return True, f"Its {said}; the lower bound reaches {least:.2f}."
