"""The criteria of a stage, each with its verdict, a sentence for people and its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlops_assets.serving.rollout.arm_statistics import ArmStatistics
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout_evidence import (
    EMPTY,
    ERRORS,
    QUALITY,
    QUANTILES,
    REFUSED,
    Comparison,
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
        FAIL if comparison.p_harm <= comparison.alpha else PASS,
        f"{_percent(arms['candidate'])} of the candidate's answers, {_percent(arms['champion'])}"
        f" of the champion's; a rise by {comparison.harm.tolerance:.0%} rolls back:"
        f" {_p_text(comparison)}.",
        _numbers(arms, comparison, tolerance=comparison.harm.tolerance),
    )


def compared(evidence: Evidence, name: str, stage: int) -> Criterion:
    """Whether the candidate is worse, is not by the stage's margin, or neither is shown yet."""
    comparison, margin = evidence.comparisons[name], evidence.margins[name][stage]
    arms, test = _measured(evidence, name), comparison.stages[stage]
    ruled_out = comparison.p_margin(stage)
    limit = f"{1 + margin:.2f} times" if name in QUANTILES else f"{100 * margin:.3g} points"
    return Criterion(
        name,
        FAIL
        if comparison.p_harm <= comparison.alpha
        else PASS
        if ruled_out <= test.alpha
        else INCONCLUSIVE,
        f"{name}: {_side_by_side(name, arms)}; worse: {_p_text(comparison)}; worse by {limit}:"
        f" p = {ruled_out:.2g}, ruled out up to {test.alpha:g}.",
        _numbers(arms, comparison, margin=margin, p_margin=ruled_out, release_alpha=test.alpha),
    )


def _side_by_side(name: str, arms: Mapping[str, float | None]) -> str:
    """Both arms in words."""
    known = {arm: value for arm, value in arms.items() if value is not None}
    if len(known) < len(arms):
        unknown = (arm for arm in arms if arm not in known)
        return f"nothing is known of the {' and the '.join(unknown)} yet"
    text = _milliseconds if name in QUANTILES else _score if name == QUALITY else _percent
    return f"{text(known['candidate'])}, the champion's {text(known['champion'])}"


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


def _numbers(
    arms: Mapping[str, float | None], comparison: Comparison, **more: float
) -> dict[str, Any]:
    tests = {"p_harm": comparison.p_harm, "alpha": comparison.alpha}
    numbers = {**arms, **more, **tests, "design_effect": comparison.design_effect}
    return {name: value for name, value in numbers.items() if value is not None}


def _p_text(comparison: Comparison) -> str:
    return f"p = {comparison.p_harm:.2g}, shown up to {comparison.alpha:.2g}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.2%}"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms"


def _score(value: float) -> str:
    return f"{value:.3f}"
