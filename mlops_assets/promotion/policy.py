"""When a candidate becomes the champion. Pure functions over the evidence.

A first champion must pass the floors and beat its own base model and the constant answer (which
free text does not have), each beyond chance. A later one must pass the floors and beat the
champion on the same test rows: McNemar's exact test on the rows that only one of the two answers
right, and a smallest improvement, because on a large test split a gain of no use is significant
too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.ledger import KEPT, NO_VERDICT, PROMOTED
from mlops_assets.promotion.evidence import Evidence

VERSION = "1"


class PromotionSpec(BaseModel):
    """What a candidate has to show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(
        0.05, ge=0.0001, le=0.2, description="Significance level of each exact test."
    )
    min_effect: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="Smallest gain in exact match over the champion: 0.01 is one point.",
    )
    min_items: int = Field(100, ge=20, le=1_000_000, description="Fewer test rows give no verdict.")


@dataclass(frozen=True)
class Judgement:
    """An outcome, the sentence that explains it, and the numbers behind it."""

    outcome: str
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)


def judge(evidence: Evidence, against: str | None, spec: PromotionSpec) -> Judgement:
    """The judgement on a candidate. ``against`` is the champion's digest, None without one."""
    if evidence.items < spec.min_items:
        return Judgement(
            NO_VERDICT, f"{evidence.items} test rows, at least {spec.min_items} are needed"
        )
    failed = [floor for floor in evidence.floors if not floor.passed]
    if failed:
        shown = ", ".join(f"{f.name} {f.measured:.3f} against {f.required:.3f}" for f in failed)
        return Judgement(KEPT, f"below the floor: {shown}")
    return _first(evidence, spec) if against is None else _challenge(evidence, spec)


def _first(evidence: Evidence, spec: PromotionSpec) -> Judgement:
    tuned, scores = evidence.correct["tuned"], evidence.exact_match
    chances = {"base": mcnemar(tuned, evidence.correct["base"])}
    if "majority" in scores:
        chances["majority"] = exceeds(sum(tuned), evidence.items, scores["majority"])
    numbers = {f"p_{name}": p for name, p in chances.items()}
    for name, p in chances.items():
        if scores["tuned"] <= scores[name] or p >= spec.alpha:
            reason = f"not better than {name} beyond chance: {_compared(evidence, name, p)}"
            return Judgement(KEPT, reason, numbers)
    reason = f"first champion: {_compared(evidence, 'base', chances['base'])}"
    return Judgement(PROMOTED, reason, numbers)


def _challenge(evidence: Evidence, spec: PromotionSpec) -> Judgement:
    gain = evidence.exact_match["tuned"] - evidence.exact_match["champion"]
    p = mcnemar(evidence.correct["tuned"], evidence.correct["champion"])
    numbers = {"p_champion": p, "gain": gain}
    shown = _compared(evidence, "champion", p)
    # The gain is a difference of shares: rounding must not decide at the very threshold.
    if gain >= spec.min_effect - 1e-9 and gain > 0 and p < spec.alpha:
        return Judgement(PROMOTED, f"better than the champion: {shown}", numbers)
    return Judgement(KEPT, f"not better than the champion: {shown}", numbers)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Two-sided exact p value of McNemar's test (1947): a sign test on the rows on which the
    two differ; 1 when they differ on none."""
    from scipy.stats import binomtest

    pairs = list(zip(ours, theirs, strict=True))
    won = sum(a and not b for a, b in pairs)
    lost = sum(b and not a for a, b in pairs)
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def exceeds(successes: int, trials: int, share: float) -> float:
    """Exact binomial p value of so many successes when the true share is ``share``."""
    from scipy.stats import binomtest

    return float(binomtest(successes, trials, share, alternative="greater").pvalue)


def _compared(evidence: Evidence, other: str, p: float) -> str:
    scores = evidence.exact_match
    shown = "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"
    return f"exact match {scores['tuned']:.1%} against {scores[other]:.1%} ({shown})"
