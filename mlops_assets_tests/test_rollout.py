"""Every action of a staged release and its reason; what may never happen; how often it errs."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_assets.request_record import CANARY, CHAMPION, SHADOW
from mlops_assets.serving.records.observations import Observation
from mlops_assets.serving.rollout.arm_statistics import ArmStatistics, latency_step
from mlops_assets.serving.rollout.release_spec import ReleaseSpec
from mlops_assets.serving.rollout.rollout import (
    ADVANCE,
    HOLD,
    ROLL_BACK,
    Incidents,
    StageVerdict,
    judge,
)
from mlops_assets.serving.rollout.rollout_evidence import ALPHA_SHARES, Evidence
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS

SPEC = ReleaseSpec()
NAN = math.nan


def arm(
    requests: int, failed: int = 0, ms: float = 100.0, scores: tuple[int, int] = (0, 0), **more: int
) -> ArmStatistics:
    """Requests that took about as long; ``scores`` are good and bad ones."""
    step, answered = latency_step(ms), requests - failed
    slow = answered // 10
    return ArmStatistics(
        requests=requests,
        failed=failed,
        latencies=Counter({step: answered - slow, step + 40: slow}),
        losses=Counter({0.0: scores[0], 1.0: scores[1]}),
        **more,
    )


def after(
    blocks: int,
    candidate: dict[str, Any] | None = None,
    spec: ReleaseSpec = SPEC,
    stage: str = CANARY,
) -> Evidence:
    """The evidence after so many blocks of 40 requests each, the champion's all sound."""
    evidence = Evidence(spec, stage)
    for _ in range(blocks):
        evidence.add_block(
            arm(40, refused=2, scores=(8, 2)), arm(**{"requests": 40, **(candidate or {})})
        )
    return evidence


def decide(evidence: Evidence, spec: ReleaseSpec = SPEC, **change: Any) -> StageVerdict:
    """The verdict at 50% after the hold, unless said otherwise."""
    said = {"stage": CANARY, "percent": 50, "elapsed_s": 700.0, "total_s": 2100.0, **change}
    return judge(spec, evidence=evidence, **said)


def verdict_of(verdict: StageVerdict, name: str) -> str:
    return next(one.verdict for one in verdict.criteria if one.name == name)


REQUIRED = ReleaseSpec(quality_required=True)
CASES = [
    # blocks, the candidate's block, what is said, action, part of the reason
    (60, {}, {}, ADVANCE, "Nothing speaks against 100%"),
    (60, {}, {"percent": 5}, ADVANCE, "Nothing speaks against 25%"),
    (60, {}, {"elapsed_s": 599.0}, HOLD, "time"),
    (60, {}, {"elapsed_s": NAN}, HOLD, "time"),
    (2, {}, {"percent": 5}, HOLD, "sample"),
    (4, {}, {}, HOLD, "errors"),
    (
        4,
        {},
        {"elapsed_s": 86_400.0},
        ROLL_BACK,
        "within 86,400 s of this stage: errors",
    ),
    (4, {}, {"total_s": 259_200.0}, ROLL_BACK, "No verdict within 259,200 s of the rollout"),
    (1300, {"failed": 0, "ms": 119.0}, {}, ROLL_BACK, "No verdict within 50,000 requests: latency"),
    (10, {"failed": 4}, {}, ROLL_BACK, "errors: 10.00%"),
    (1, {"failed": 40}, {}, ROLL_BACK, "errors: 100.00%"),
    (2, {"empty": 20}, {}, ROLL_BACK, "50.00% of the candidate's answers"),
    (3, {"refused": 20}, {}, ROLL_BACK, "50.00% of the candidate's answers"),
    (60, {"refused": 3}, {}, ADVANCE, ""),
    (20, {"ms": 200.0}, {}, ROLL_BACK, "latency/p50: 2"),
    (60, {"ms": 104.0}, {}, ADVANCE, ""),
    (60, {"scores": (2, 8)}, {}, ROLL_BACK, "quality: 0.2"),
    (60, {}, {"incidents": Incidents(crashes=1)}, ROLL_BACK, "engine died 1 times"),
    (60, {}, {"incidents": Incidents(digest_mismatch=True)}, ROLL_BACK, "not what was approved"),
    (60, {}, {"incidents": Incidents(non_finite=1)}, ROLL_BACK, "Numbers that are none: 1"),
    (60, {"non_finite": 1}, {}, ROLL_BACK, "Numbers that are none"),
    (60, {}, {"spec": REQUIRED}, HOLD, "quality"),
    (60, {}, {"spec": REQUIRED, "elapsed_s": 86_400.0}, ROLL_BACK, "quality"),
    (400, {"scores": (8, 2)}, {"spec": REQUIRED}, ADVANCE, ""),
]


@pytest.mark.parametrize(("blocks", "candidate", "said", "action", "reason"), CASES)
def test_every_action_has_its_reason(
    blocks: int, candidate: dict[str, Any], said: dict[str, Any], action: str, reason: str
) -> None:
    verdict = decide(after(blocks, candidate, said.get("spec", SPEC)), **said)
    assert (verdict.action, reason in verdict.reason) == (action, True), verdict.reason
    for criterion in verdict.criteria:
        assert criterion.verdict in (PASS, FAIL, INCONCLUSIVE)
        assert all(math.isfinite(number) for number in criterion.numbers.values())


def test_the_shadow_has_its_own_sample_and_margins() -> None:
    shadow = {"stage": SHADOW, "percent": 0}
    assert decide(after(2, stage=SHADOW), **shadow).action == HOLD
    assert decide(after(3, stage=SHADOW), **shadow).action == ADVANCE
    assert decide(after(3, {"failed": 20}, stage=SHADOW), **shadow).action == ROLL_BACK
    with pytest.raises(ValueError, match="not among"):
        decide(after(3, stage=SHADOW), percent=5)


def test_required_scores_are_waited_for_only_where_users_can_give_them() -> None:
    shadow = decide(after(3, spec=REQUIRED, stage=SHADOW), REQUIRED, stage=SHADOW, percent=0)
    assert shadow.action == ADVANCE
    assert decide(after(60, spec=REQUIRED), REQUIRED).action == HOLD


def test_each_stage_rules_out_the_same_loss_of_all_users() -> None:
    margins = Evidence(SPEC, CANARY).margins["errors"]
    following = [25, 50, 100]
    assert [margin * percent / 100 for margin, percent in zip(margins, following, strict=True)] == (
        pytest.approx([SPEC.error_margin] * 3)
    )
    assert Evidence(SPEC, SHADOW).margins["errors"] == pytest.approx([0.2])
    assert sum(ALPHA_SHARES.values()) == pytest.approx(1)


def test_a_failure_that_begins_in_the_last_stage_is_found() -> None:
    evidence = after(200)
    evidence.enter()
    served = 0
    while decide(evidence, elapsed_s=0.0).action != ROLL_BACK:
        evidence.add_block(arm(20), arm(20, failed=4))
        served += 20
    assert served <= 300


def observed(number: int, **change: Any) -> Observation:
    said = {
        "arm": CANARY if number % 2 else CHAMPION,
        "at": number / 10,
        "failed": False,
        "empty": False,
        "refused": False,
        "latency_ms": 100.0 + number % 7,
    }
    return Observation(**{**said, **change})


def test_the_same_observations_give_the_same_verdict_whenever_they_are_read() -> None:
    observations = [observed(number, failed=number % 97 == 0) for number in range(4000)]
    live, again = Evidence(SPEC, CANARY), Evidence(SPEC, CANARY)
    seen = []
    for observation in observations:
        live.add(observation)
        seen.append(decide(live).action) if observation.at % 30 == 0 else None
    for observation in observations:
        again.add(observation)
    assert decide(again) == decide(live)
    assert set(seen) == {HOLD, ADVANCE}


def test_other_arms_are_left_out() -> None:
    evidence = Evidence(SPEC, CANARY)
    evidence.add(observed(0, arm="outside", latency_ms=NAN))
    evidence.add(observed(0, arm=SHADOW, latency_ms=NAN))
    assert (evidence.stage_requests, evidence.non_finite) == (0, (0, 0))


@pytest.mark.parametrize("number", [NAN, math.inf, -1.0])
@pytest.mark.parametrize("field", ["latency_ms", "quality"])
@pytest.mark.parametrize("where", [CANARY, CHAMPION])
def test_a_number_that_is_none_never_lets_a_candidate_on(
    number: float, field: str, where: str
) -> None:
    evidence = after(60)
    assert decide(evidence).action == ADVANCE
    evidence.add(observed(0, arm=where, **{field: number}))
    verdict = decide(evidence)
    assert verdict.action == (ROLL_BACK if where == CANARY else HOLD)
    assert verdict_of(verdict, "non_finite") != PASS


counts = st.integers(0, 40)
block = st.tuples(counts, counts, st.integers(0, 40), st.integers(0, 40))


def evidence_of(blocks: list[tuple[int, int, int, int]], more: int = 0) -> Evidence:
    """Blocks of failures of both, empty answers and time of the candidate, with ``more`` harm."""
    evidence = Evidence(SPEC, CANARY)
    for control, candidate, empty, slower in blocks:
        failed = min(40, candidate + more)
        evidence.add_block(
            arm(40, control), arm(40, failed, 100.0 + slower, empty=min(empty, 40 - failed))
        )
    return evidence


@settings(max_examples=60, deadline=None)
@given(st.lists(block, max_size=12), st.floats(0, 1e6), st.sampled_from([5, 25, 50]))
def test_nothing_advances_before_its_minimum(
    blocks: list[tuple[int, int, int, int]], elapsed: float, percent: int
) -> None:
    evidence = evidence_of(blocks)
    verdict = decide(evidence, elapsed_s=elapsed, percent=percent)
    if evidence.stage_requests < SPEC.minimum_requests or elapsed < SPEC.hold_s:
        assert verdict.action != ADVANCE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=12), st.integers(1, 40))
def test_more_failures_never_turn_a_rollback_into_an_advance(
    failures: list[tuple[int, int]], more: int
) -> None:
    blocks = [(control, candidate, 0, 0) for control, candidate in failures]
    before, worse = decide(evidence_of(blocks)), decide(evidence_of(blocks, more))
    if before.action == ROLL_BACK:
        assert worse.action == ROLL_BACK
    if worse.action == ADVANCE:
        assert before.action == ADVANCE


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12))
def test_arms_that_do_the_same_show_no_harm(failures: list[int]) -> None:
    verdict = decide(evidence_of([(failed, failed, 0, 0) for failed in failures]))
    assert verdict.action in (ADVANCE, HOLD)


@settings(deadline=None)
@given(st.lists(st.floats(0.2, 1e6), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_within_a_percent(latencies: list[float], share: float) -> None:
    statistics = ArmStatistics()
    for ms in latencies:
        statistics.add(observed(0, latency_ms=ms))
    exact = sorted(latencies)[math.ceil(round(share * len(latencies), 9)) - 1]
    assert statistics.speed().quantile_ms(share) == pytest.approx(exact, rel=0.0101)


def test_merged_counts_are_those_of_all_requests() -> None:
    parts, whole = [ArmStatistics(), ArmStatistics()], ArmStatistics()
    for number in range(40):
        one = observed(number, failed=number % 5 == 0, empty=number % 3 == 0, quality=number / 40)
        parts[number % 2].add(one)
        whole.add(one)
    parts[0].merge(parts[1])
    assert parts[0] == whole


@pytest.mark.parametrize(
    "settings",
    [
        {"canary_steps": [25, 5]},
        {"canary_steps": [5, 100]},
        {"canary_steps": []},
        {"minimum_requests": 100, "maximum_requests": 50},
        {"hold_s": 7200.0, "maximum_stage_s": 3600.0},
        {"error_margin": 0.0},
        {"alpha": 0.5},
        {"error_rate": 0.1},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReleaseSpec(**settings)
