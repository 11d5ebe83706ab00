"""The rows by which a release goes on, as decisions to be appended.

Each has a key that follows from the promotion and the step, so that whoever decides the same
again, another controller or this one after a crash, finds the row that stands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlops_assets.artifacts import digest_json
from mlops_assets.ledger import CANARY, RELEASED, ROLLED_BACK, SHADOW, Decision, LedgerEntry
from mlops_assets.release_state import ReleaseState
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout import StageVerdict


def begin(promotion: LedgerEntry, percent: int) -> Decision:
    """The first step: in shadow where ``percent`` is 0, else with that share of the users."""
    what = "sees copies of requests" if percent == 0 else f"{percent}% of the users get it"
    return _step(promotion, percent, f"its engine is ready: {what}", {})


def advance(
    promotion: LedgerEntry, percent: int, reason: str, evidence: Mapping[str, Any]
) -> Decision:
    """The next step: ``percent`` of the users, 100 for all of them; ``evidence`` decided."""
    return _step(promotion, percent, reason, evidence)


def release_first(promotion: LedgerEntry) -> Decision:
    """All users at once: nothing was served before that it could be compared with."""
    return _step(promotion, 100, "nothing was released before: all users get it at once", {})


def roll_back(release: ReleaseState, reason: str, evidence: Mapping[str, Any]) -> Decision:
    """The row that restores what was in force before.

    ``evidence`` is what decided: numbers, or what somebody signed. Raises ValueError where there
    is nothing to restore.
    """
    undone, restored = release.champion, release.restores
    if undone is None or restored is None:
        raise ValueError("nothing was in force before")
    return Decision(
        key=digest_json({"rolled_back": undone.computed}),
        outcome=ROLLED_BACK,
        reason=reason,
        model=restored.decision.model,
        version=restored.decision.version,
        bundle=restored.decision.bundle,
        evidence={"undoes": undone.entry, "promotion": restored.entry, **evidence},
        replaces=undone.entry,
    )


def numbers(verdict: StageVerdict) -> dict[str, Any]:
    """A verdict as evidence."""
    criteria = [asdict(criterion) for criterion in verdict.criteria]
    return {"action": verdict.action, "reason": verdict.reason, "criteria": criteria}


def steps_of(entries: Sequence[LedgerEntry], promotion: LedgerEntry) -> list[LedgerEntry]:
    """The rows of a promotion's shadow and canary, oldest first."""
    return [
        row
        for row in entries
        if row.decision.outcome in (SHADOW, CANARY)
        and row.decision.model == promotion.decision.model
        and row.decision.evidence.get("promotion") == promotion.entry
    ]


def with_steps(spec: ReleaseSpec, taken: Sequence[LedgerEntry]) -> ReleaseSpec:
    """The settings with the steps that were taken among theirs: they may have been changed in the
    middle of a rollout."""
    percents = {percent_of(step) for step in taken} - {0}
    if percents <= set(spec.canary_steps):
        return spec
    return spec.model_copy(update={"canary_steps": sorted(percents | set(spec.canary_steps))})


def percent_of(step: LedgerEntry) -> int:
    """The share of users of a step; 0 for the shadow."""
    return int(step.decision.evidence.get("percent", 0))


def _step(promotion: LedgerEntry, percent: int, reason: str, more: Mapping[str, Any]) -> Decision:
    outcome = {0: SHADOW, 100: RELEASED}.get(percent, CANARY)
    decided = promotion.decision
    return Decision(
        key=digest_json({"release": promotion.computed, "step": outcome, "percent": percent}),
        outcome=outcome,
        reason=reason,
        model=decided.model,
        version=decided.version,
        bundle=decided.bundle,
        evidence={"promotion": promotion.entry, "percent": percent, **more},
    )
