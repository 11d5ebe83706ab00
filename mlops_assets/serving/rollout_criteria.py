"""The criteria of a stage, each with its verdict, a sentence for people and its numbers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mlops_assets.serving.arm_statistics import ArmStatistics
from mlops_assets.serving.release_spec import ReleaseSpec
from mlops_assets.serving.rollout_evidence import (
    EMPTY,
    ERRORS,
    QUALITY,
    QUANTILES,
    REFUSED,
    Evidence,
)
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, Criterion

SPIKES = (EMPTY, REFUSED)
COMPARED = (ERRORS, *QUANTILES, QUALITY)


def incidents_of(
    spec: ReleaseSpec, evidence: Evidence, crashes: int, mismatch: bool, non_finite: int
) -> Iterator[Criterion]:
    """What rolls back at once, or keeps the control from being compared with."""
    yield Criterion(
        "digest",
        FAIL if mismatch else PASS,
        "The candidate's bundle is not what was approved."
        if mismatch
        else "The candidate's bundle is what was approved.",
    )
    yield Criterion(
        "crashes",
        FAIL if crashes > spec.maximum_crashes else PASS,
        f"The candidate's engine died {crashes} times; {spec.maximum_crashes} are tolerated.",
        {"crashes": crashes, "tolerated": spec.maximum_crashes},
    )
    champions, candidates = evidence.non_finite
    bad = candidates + non_finite
    yield Criterion(
        "non_finite",
        FAIL if bad else INCONCLUSIVE if champions else PASS,
        f"Numbers that are none: {bad} of the candidate, {champions} of the champion.",
        {"candidate": bad, "champion": champions},
    )


def spike(evidence: Evidence, name: str) -> Criterion:
    """Whether answers without content, or refusals, have become much more frequent."""
    comparison = evidence.comparisons[name]
    arms = _measured(evidence, name)
    return Criterion(
        name,
        FAIL if _harmful(evidence, name) else PASS,
        f"{_percent(arms['candidate'])} of the candidate's answers, {_percent(arms['champion'])}"
        f" of the champion's; a rise by {comparison.harm.tolerance:.0%} rolls back"
        f" ({_p_text(comparison.harm.peak, comparison.alpha)}).",
        _numbers(arms, tolerance=comparison.harm.tolerance, **_evidence_of(evidence, name)),
    )


def compared(evidence: Evidence, name: str, stage: int) -> Criterion:
    """Whether the candidate is worse, is not by the stage's margin, or neither is shown yet."""
    comparison, margin = evidence.comparisons[name], evidence.margins[name][stage]
    arms, test = _measured(evidence, name), comparison.shown[stage]
    verdict = FAIL if _harmful(evidence, name) else PASS if test.shown else INCONCLUSIVE
    text = _milliseconds if name in QUANTILES else _score if name == QUALITY else _percent
    limit = f"{1 + margin:.2f} times" if name in QUANTILES else f"{100 * margin:.3g} points"
    ruled_out, worse = p_value(test.log_e), comparison.harm
    return Criterion(
        name,
        verdict,
        f"{name}: {text(arms['candidate'])}, the champion's {text(arms['champion'])}; worse:"
        f" {_p_text(worse.peak, comparison.alpha)}; worse by {limit}: p = {ruled_out:.2g}, ruled"
        f" out below {test.alpha:g}.",
        _numbers(
            arms,
            margin=margin,
            p_margin=ruled_out,
            release_alpha=test.alpha,
            **_evidence_of(evidence, name),
        ),
    )


def _harmful(evidence: Evidence, name: str) -> bool:
    comparison = evidence.comparisons[name]
    return comparison.harm.peak >= -math.log(comparison.alpha)


def _evidence_of(evidence: Evidence, name: str) -> dict[str, float]:
    comparison = evidence.comparisons[name]
    return {"p_harm": p_value(comparison.harm.peak), "alpha": comparison.alpha}


def _measured(evidence: Evidence, name: str) -> dict[str, float | None]:
    arms = {"candidate": evidence.candidate, "champion": evidence.control}
    if name in QUANTILES:
        champions, candidates = evidence.speeds
        speeds = {"candidate": candidates, "champion": champions}
        return {arm: speed.quantile_ms(QUANTILES[name]) for arm, speed in speeds.items()}
    return {arm: _measure(statistics, name) for arm, statistics in arms.items()}


def _measure(arm: ArmStatistics, name: str) -> float | None:
    if name == QUALITY:
        return arm.quality()
    counted, of = {
        ERRORS: (arm.failed, arm.requests),
        EMPTY: (arm.empty, arm.answered),
        REFUSED: (arm.refused, arm.answered),
    }[name]
    return counted / of if of else None


def _numbers(arms: Mapping[str, float | None], **more: float) -> dict[str, Any]:
    numbers = {**arms, **more}
    return {name: value for name, value in numbers.items() if value is not None}


def p_value(log_e: float) -> float:
    """Always valid: the smallest alpha at which this evidence would do."""
    return math.exp(min(0.0, -log_e))


def _p_text(log_e: float, alpha: float) -> str:
    return f"p = {p_value(log_e):.2g}, shown below {alpha:.2g}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.2%}"


def _milliseconds(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f} ms"


def _score(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
