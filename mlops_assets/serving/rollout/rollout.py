"""Whether a candidate goes on, waits or is taken back: one pure decision from what was seen.

Roll back when harm is shown, go on when every margin of the stage is ruled out, wait while
neither is, roll back when waiting has to end. A number that is missing or none decides nothing.
"""

import math
from dataclasses import dataclass

from mlops_assets.request_record import SHADOW
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout_criteria import (
    COMPARED,
    SPIKES,
    compared,
    incidents_of,
    spike,
)
from mlops_assets.serving.rollout.rollout_evidence import QUALITY, Evidence
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, Criterion

ADVANCE, HOLD, ROLL_BACK = "ADVANCE", "HOLD", "ROLL_BACK"


@dataclass(frozen=True)
class Incidents:
    """What the candidate's engine did that no statistics are needed for."""

    crashes: int = 0
    """How often it died."""
    digest_mismatch: bool = False
    """Its bundle is not the bytes that were approved."""
    non_finite: int = 0
    """Answers with a number that is none, beyond what the observations show."""


@dataclass(frozen=True)
class StageVerdict:
    """What to do now, and why."""

    action: str
    """``ADVANCE``, ``HOLD`` or ``ROLL_BACK``."""
    reason: str
    """One sentence for people."""
    criteria: tuple[Criterion, ...]
    """Everything that was asked, with its numbers."""


def judge(
    spec: ReleaseSpec,
    stage: str,
    percent: int,
    elapsed_s: float,
    evidence: Evidence,
    *,
    total_s: float,
    incidents: Incidents = Incidents(),
) -> StageVerdict:
    """Decide on the candidate in the stage at ``percent`` of the users; 0 is the shadow.

    ``elapsed_s`` is the time in this stage, ``total_s`` that since the rollout began. Raises
    ValueError where ``evidence`` is not that of this stage.
    """
    if percent not in evidence.percents:
        raise ValueError(f"{percent} is not among {evidence.percents}")
    index = evidence.percents.index(percent)
    criteria = (
        *incidents_of(spec, evidence, incidents.crashes, incidents.digest_mismatch,
                      incidents.non_finite),
        *(spike(evidence, name) for name in SPIKES),
        *(compared(evidence, name, index) for name in COMPARED),
        _sample(spec, stage, evidence),
        _time(spec, elapsed_s),
    )  # fmt: skip
    harm = [one for one in criteria if one.verdict == FAIL]
    if harm:
        return StageVerdict(ROLL_BACK, harm[0].detail, criteria)
    # In the shadow nobody sees the candidate's answers, so nobody can judge them.
    needs_quality = spec.quality_required and stage != SHADOW
    asked = (one for one in criteria if one.name != QUALITY or needs_quality)
    open_ones = [one for one in asked if one.verdict != PASS]
    if not open_ones:
        after = spec.next_percent(percent)
        return StageVerdict(ADVANCE, f"Nothing speaks against {after}% of the users.", criteria)
    missing = ", ".join(one.name for one in open_ones)
    if end := _deadline(spec, stage, elapsed_s, total_s, evidence):
        return StageVerdict(ROLL_BACK, f"No verdict within {end}: {missing}.", criteria)
    return StageVerdict(HOLD, f"No verdict yet: {missing}.", criteria)


def _sample(spec: ReleaseSpec, stage: str, evidence: Evidence) -> Criterion:
    seen = evidence.stage_requests
    needed = spec.shadow_minimum_pairs if stage == SHADOW else spec.minimum_requests
    return Criterion(
        "sample",
        PASS if seen >= needed else INCONCLUSIVE,
        f"The candidate had {seen:,} of at least {needed:,} requests in this stage.",
        {"requests": seen, "minimum": needed},
    )


def _time(spec: ReleaseSpec, elapsed_s: float) -> Criterion:
    return Criterion(
        "time",
        PASS if elapsed_s >= spec.hold_s else INCONCLUSIVE,  # NaN is no time
        f"The stage has lasted {elapsed_s:,.0f} of at least {spec.hold_s:,.0f} s.",
        {"elapsed_s": elapsed_s} if math.isfinite(elapsed_s) else {},
    )


def _deadline(
    spec: ReleaseSpec, stage: str, elapsed_s: float, total_s: float, evidence: Evidence
) -> str:
    """What has run out, in words; empty while nothing has."""
    most = spec.shadow_maximum_pairs if stage == SHADOW else spec.maximum_requests
    if evidence.stage_requests >= most:
        return f"{most:,} requests"
    if elapsed_s >= spec.maximum_stage_s:
        return f"{spec.maximum_stage_s:,.0f} s of this stage"
    if total_s >= spec.deadline_s:
        return f"{spec.deadline_s:,.0f} s of the rollout"
    return ""
