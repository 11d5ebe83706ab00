"""The absolute criteria: floors of scores, ceilings of latency and cost, checks that are green.

They ask nothing of the champion's scores. A number that is missing or not finite is no verdict.
"""

import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from mlops_assets.checks import CheckResult
from mlops_assets.evaluation.gate_evidence import CHAMPION, JUDGE, OURS, Evidence, Suite
from mlops_assets.evaluation.gate_judge import judged_answers
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, Criterion

FLOOR_OF_KIND = {
    "golden": "minimum_golden",
    "slices": "minimum_slices",
    "regression": "minimum_regression",
    "feedback": "minimum_feedback",
    "safety": "minimum_safety",
    "tools": "minimum_tool_calls",
    JUDGE: "minimum_judge",
}


def suites_of(evidence: Evidence) -> list[Suite]:
    """Every suite but the test split; the answers that a judge with a vote saw are one too."""
    judged = judged_answers(evidence)
    suites = [suite for suite in evidence.suites.values() if suite is not evidence.test]
    return [*suites, judged] if judged else suites


def decide(name: str, passed: bool, detail: str, **numbers: Any) -> Criterion:
    """A criterion whose numbers are all there."""
    return Criterion(name, PASS if passed else FAIL, detail, numbers)


def undecided(name: str, why: str, **numbers: Any) -> Criterion:
    """A criterion on which nothing can be said, with the reason."""
    return Criterion(name, INCONCLUSIVE, why, numbers)


def judge_completeness(evidence: Evidence, spec: GateSpec) -> Iterator[Criterion]:
    """Whether the report is whole, and has enough test rows."""
    items = evidence.test.items
    if evidence.faults:
        shown = "; ".join(evidence.faults[:3])
        more = len(evidence.faults) - 3
        why = shown + (f"; and {more} more" if more > 0 else "")
        yield undecided("evidence", why, faults=len(evidence.faults))
    else:
        yield decide("evidence", True, "every value is finite and agrees with its records")
    enough, numbers = items >= spec.minimum_items, {"items": items, "required": spec.minimum_items}
    detail = f"{items:,} test rows, at least {spec.minimum_items:,} are needed"
    yield Criterion("test/items", PASS if enough else INCONCLUSIVE, detail, numbers)


def judge_floors(evidence: Evidence, spec: GateSpec) -> Iterator[Criterion]:
    """The floors of the test split and of each suite."""
    test, text = evidence.test, evidence.report.get("answers") == "text"
    yield _at_least("floor/exact_match", test, "exact_match", spec.minimum_exact_match)
    if not text:
        yield _at_least("floor/valid_json", test, "valid_json", spec.minimum_valid_json)
        if spec.beat_majority:
            yield _above_majority(test)
    elif spec.minimum_valid_json:
        why = "the answers are free text: set gate_verdict's minimum_valid_json to 0"
        yield undecided("floor/valid_json", why)
    suites = suites_of(evidence)
    yield from (_suite_floor(suite, spec) for suite in suites)
    yield from _floors_not_asked({suite.kind for suite in suites}, spec)


def judge_ceilings(evidence: Evidence, spec: GateSpec) -> Iterator[Criterion]:
    """Latency and length of the answers, absolutely and beside the champion's."""
    ours, theirs = (_p95(evidence, system) for system in (OURS, CHAMPION))
    yield _at_most("latency/p95", ours, spec.maximum_latency_p95_ms, "ms for a request (p95)")
    if evidence.compared:
        slack = spec.latency_slack_ms
        yield _ratio("latency/ratio", ours, theirs, spec.maximum_latency_ratio, "ms (p95)", slack)
    ours, theirs = (_tokens(evidence.test, system) for system in (OURS, CHAMPION))
    yield _at_most("cost/tokens", ours, spec.maximum_tokens_per_answer, "tokens for an answer")
    if evidence.compared:
        yield _ratio("cost/ratio", ours, theirs, spec.maximum_tokens_ratio, "tokens for an answer")


def judge_checks(checks: Mapping[str, CheckResult | None]) -> Iterator[Criterion]:
    """Whether the checks on data and adapter are green; by name, None where none was recorded."""
    for name, result in checks.items():
        if result is None:
            why = "has no result for what was measured: run the job `train`, which checks it"
            yield undecided(f"check/{name}", why)
        else:
            yield decide(f"check/{name}", result.passed, result.detail)


def mean_score(suite: Suite, system: str, metric: str = "") -> float | None:
    """The system's mean; None where an item has no score, or there is none."""
    scores = suite.of(system, metric)
    if scores is None or not scores.size:
        return None
    mean = float(scores.mean())
    return mean if math.isfinite(mean) else None


def unscored(suite: Suite, system: str, metric: str = "") -> str:
    """Why the system has no mean: for people."""
    metric = metric or suite.leading or "metric"
    scores = suite.of(system, metric)
    if scores is None or not scores.size:
        return f"{system} has no {metric}"
    missing = sum(not math.isfinite(score) for score in scores.tolist())
    return f"{missing} of {suite.items} items have no {metric} of {system}"


def _at_least(name: str, suite: Suite, metric: str, required: float) -> Criterion:
    measured = mean_score(suite, OURS, metric)
    if measured is None:
        return undecided(name, unscored(suite, OURS, metric), required=required)
    asked = f"at least {required:.1%} is needed" if required else "no floor is set"
    detail = f"{measured:.1%}, {asked}"
    return decide(name, measured >= required - 1e-9, detail, measured=measured, required=required)


def _above_majority(test: Suite) -> Criterion:
    name, majority = "floor/majority", mean_score(test, "majority", "exact_match")
    measured = mean_score(test, OURS, "exact_match")
    if measured is None or majority is None:
        system = OURS if measured is None else "majority"
        return undecided(name, unscored(test, system, "exact_match"))
    detail = f"{measured:.1%}, more than the commonest answer's {majority:.1%} is needed"
    return decide(name, measured > majority, detail, measured=measured, majority=majority)


def _suite_floor(suite: Suite, spec: GateSpec) -> Criterion:
    name, least = f"{suite.label}/floor", spec.minimum_suite_items
    if suite.kind not in FLOOR_OF_KIND:
        return undecided(name, f"no floor is known for suites of kind {suite.kind}")
    if suite.items < least:
        why = f"{suite.items} items, at least {least} are needed"
        return undecided(name, why, items=suite.items, required_items=least)
    required = float(getattr(spec, FLOOR_OF_KIND[suite.kind]))
    return _at_least(name, suite, suite.leading, required)


def _floors_not_asked(kinds: AbstractSet[str], spec: GateSpec) -> Iterator[Criterion]:
    """A floor that is set and that no suite was asked for: nothing is known of it.

    A judge without a vote is another matter: `judge_silence` tells of it.
    """
    for kind, setting in FLOOR_OF_KIND.items():
        required = float(getattr(spec, setting))
        if required and kind not in kinds and kind != JUDGE:
            why = f"no suite of kind {kind} was run: add one, or set gate_verdict's {setting} to 0"
            yield undecided(f"floor/{kind}", why, required=required)


def _at_most(name: str, measured: float | None, most: float, unit: str) -> Criterion:
    if measured is None:
        return undecided(name, f"{OURS} has no {unit}", allowed=most)
    detail = f"{measured:.1f} {unit}, at most {most:g} allowed"
    return decide(name, measured <= most, detail, measured=measured, allowed=most)


def _ratio(
    name: str, ours: float | None, theirs: float | None, most: float, unit: str, slack: float = 0.0
) -> Criterion:
    if ours is None or theirs is None:
        who = OURS if ours is None else CHAMPION
        return undecided(name, f"{who} has no {unit}", allowed=most)
    passed = ours <= theirs * most or ours - theirs <= slack
    detail = (
        f"{ours:.1f} {unit} against the champion's {theirs:.1f}, at most {most:g} times allowed"
    )
    return decide(name, passed, detail, measured=ours, champion=theirs, allowed=most)


def _p95(evidence: Evidence, system: str) -> float | None:
    latency = evidence.report.get("latency")
    timed = latency.get(system) if isinstance(latency, Mapping) else None
    value = timed.get("p95_ms") if isinstance(timed, Mapping) else None
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable and math.isfinite(value) else None  # type: ignore[arg-type]


def _tokens(test: Suite, system: str) -> float | None:
    counts = test.tokens.get(system)
    mean = float(counts.mean()) if counts is not None and counts.size else math.nan
    return mean if math.isfinite(mean) else None
