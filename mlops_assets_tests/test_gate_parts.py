"""The gate on slices, suites and a judge's scores: what is worse fails, what is noise does not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mlops_assets.checks import CheckResult
from mlops_assets.evaluation.gate import judge
from mlops_assets.evaluation.gate_evidence import Evidence, make_evidence
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.multiple_tests import holm
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, Criterion, overall
from mlops_assets_tests.gate_reports import (
    ITEMS,
    Scores,
    make_case,
    make_gate_evidence,
    rights,
)

GREEN = {"no_leakage": CheckResult(True, "clean")}
FAST = {"resamples": 1000}


def judged(evidence: Evidence, **settings: Any) -> tuple[dict[str, Criterion], Sequence[str]]:
    found, notes = judge(evidence, GREEN, GateSpec(**(FAST | settings)))
    return {item.name: item for item in found}, notes


def channels(sizes: Mapping[str, int]) -> list[dict[str, str]]:
    """Values of the dimension ``channel``, one after the other, over all items."""
    values = [{"channel": name} for name, size in sizes.items() for _ in range(size)]
    assert len(values) == ITEMS
    return values


def changed(at: int, lost: int, won: int = 0) -> dict[str, Scores]:
    """A champion who is right on every other item, and a candidate that differs from ``at`` on."""
    theirs = [float(i % 2) for i in range(ITEMS)]
    ours = list(theirs)
    right = [i for i in range(at, ITEMS) if theirs[i]][:lost]
    wrong = [i for i in range(at, ITEMS) if not theirs[i]][:won]
    for i in right:
        ours[i] = 0.0
    for i in wrong:
        ours[i] = 1.0
    return {"tuned": ours, "champion": theirs}


# --- slices ----------------------------------------------------------------------------------

SIZES = {"chat": 200, "email": 100, "web": 100}


@pytest.mark.parametrize(
    ("lost", "expected"), [(0, PASS), (4, PASS), (10, FAIL), (16, FAIL), (40, FAIL)]
)
def test_a_slice_fails_when_it_is_surely_worse_than_the_margin_allows(
    lost: int, expected: str
) -> None:
    evidence = make_gate_evidence(slices=channels(SIZES), **changed(300, lost))
    found, _ = judged(evidence)
    assert found["slice/channel=web"].verdict == expected
    assert found["slice/channel=chat"].verdict == found["slice/channel=email"].verdict == PASS
    assert overall(found.values()) == FAIL  # for it is not better than the champion


def test_a_gain_on_the_whole_does_not_pay_for_a_loss_on_a_slice() -> None:
    scores = changed(0, 0, won=100)
    hurt = changed(300, 16)
    ours = [*scores["tuned"][:300], *hurt["tuned"][300:]]
    evidence = make_gate_evidence(slices=channels(SIZES), tuned=ours, champion=scores["champion"])
    found, _ = judged(evidence)
    assert found["champion"].verdict == PASS
    assert found["slice/channel=web"].verdict == FAIL
    assert overall(found.values()) == FAIL


def test_the_margin_is_what_a_slice_may_lose() -> None:
    evidence = make_gate_evidence(slices=channels(SIZES), **changed(300, 16))
    found, _ = judged(evidence, slice_margin=0.1)
    assert found["slice/channel=web"].verdict == PASS


def test_many_slices_are_corrected_by_holm() -> None:
    """What fails as one of two slices is within the noise of forty."""
    few = [{"half": str(i // 200)} for i in range(ITEMS)]
    many = [{"half": str(i // 200)} | {f"d{d}": str((i + d) % 2) for d in range(19)}
            for i in range(ITEMS)]  # fmt: skip
    scores = changed(200, 12)
    verdicts, p_values = {}, {}
    for name, slices in (("few", few), ("many", many)):
        found, _ = judged(make_gate_evidence(slices=slices, **scores))
        verdicts[name] = found["slice/half=1"].verdict
        p_values[name] = found["slice/half=1"].numbers["p_corrected"]
        assert sum(name.startswith("slice/") for name in found) == (2 if slices is few else 40)
    assert verdicts == {"few": FAIL, "many": PASS}
    assert p_values["many"] == pytest.approx(20 * p_values["few"])
    assert holm([p_values["few"] / 2, 1.0])[0] == pytest.approx(p_values["few"])


def test_rare_values_are_judged_together_and_what_is_left_is_told() -> None:
    sizes = {"chat": 300, "email": 60, "fax": 15, "post": 20, "sms": 5}
    found, notes = judged(make_gate_evidence(slices=channels(sizes), **changed(360, 20)))
    assert {name for name in found if name.startswith("slice/")} == {
        "slice/channel=chat", "slice/channel=email", "slice/channel=(rare values)",
    }  # fmt: skip
    assert found["slice/channel=(rare values)"].numbers["items"] == 40
    assert found["slice/channel=(rare values)"].verdict == FAIL
    assert notes == ()
    found, notes = judged(make_gate_evidence(slices=channels(sizes), **changed(0, 0)),
                          minimum_slice_items=50)  # fmt: skip
    assert "slice/channel=(rare values)" not in found
    assert notes == ("40 test rows with rare values of channel are too few to be judged as a"
                     " slice.",)  # fmt: skip


def test_a_slice_says_which_loss_it_would_have_noticed() -> None:
    sizes = {"chat": 370, "fax": 30}
    found, _ = judged(make_gate_evidence(slices=channels(sizes), **changed(0, 20, 20)))
    large, small = (found[f"slice/channel={name}"] for name in ("chat", "fax"))
    assert large.numbers["detectable_loss"] < 0.1 < small.numbers["detectable_loss"]
    assert "would be noticed" in small.detail


def test_without_a_champion_no_slice_is_compared() -> None:
    found, _ = judged(make_gate_evidence(slices=channels(SIZES)))
    assert not [name for name in found if name.startswith("slice/")]


def test_a_score_that_is_missing_leaves_the_split_without_a_verdict() -> None:
    scores = changed(0, 0, won=40)
    ours: Scores = [None, *scores["tuned"][1:]]
    found, _ = judged(
        make_gate_evidence(slices=channels(SIZES), tuned=ours, champion=scores["champion"])
    )
    assert found["champion"].verdict == INCONCLUSIVE
    assert overall(found.values()) == INCONCLUSIVE


def test_a_candidate_that_loses_nowhere_is_rarely_held_back_by_slices() -> None:
    """The family-wise rate of false alarms, over gates of ten slices without any difference."""
    dice = np.random.default_rng(4)
    theirs = rights(ITEMS // 2)
    alarms = 0
    for _ in range(150):
        ours, champion = list(theirs), list(theirs)
        for i in dice.choice(ITEMS, 40, replace=False):
            ours[i], champion[i] = [(0.0, 1.0), (1.0, 0.0)][dice.integers(2)]
        slices = [{"d": str(dice.integers(5)), "e": str(i % 5)} for i in range(ITEMS)]
        found, _ = judged(make_gate_evidence(slices=slices, tuned=ours, champion=champion))
        parts = [item for name, item in found.items() if name.startswith("slice/")]
        assert len(parts) == 10
        alarms += any(item.verdict == FAIL for item in parts)
    assert alarms / 150 < 0.05 + 0.04


# --- suites ----------------------------------------------------------------------------------


def suite(ours: Scores, theirs: Scores | None = None, kind: str = "safety") -> dict[str, Any]:
    scores = {"tuned": ours} | ({"champion": theirs} if theirs is not None else {})
    return {"attacks": (kind, scores)}


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("golden", "minimum_golden"),
        ("slices", "minimum_slices"),
        ("regression", "minimum_regression"),
        ("feedback", "minimum_feedback"),
        ("safety", "minimum_safety"),
        ("tools", "minimum_tool_calls"),
    ],
)
def test_each_kind_of_suite_has_its_floor(kind: str, setting: str) -> None:
    evidence = make_gate_evidence(suites=suite([1.0] * 45 + [0.0] * 5, kind=kind))
    for least, expected in ((0.9, PASS), (0.91, FAIL)):
        found, _ = judged(evidence, **{setting: least})
        assert found["suite/attacks/floor"].verdict == expected
        assert overall(found.values()) == expected


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (suite([1.0] * 9), "9 items, at least 10 are needed"),
        (suite([1.0] * 49 + [None]), "1 of 50 items have no score"),
        (suite([None] * 50), "50 of 50 items have no score"),
        (suite([1.0] * 50, kind="vibes"), "no floor is known"),
    ],
)
def test_a_suite_without_its_numbers_is_no_verdict(case: dict[str, Any], said: str) -> None:
    found, _ = judged(make_gate_evidence(suites=case))
    assert found["suite/attacks/floor"].verdict == INCONCLUSIVE
    assert said in found["suite/attacks/floor"].detail
    assert overall(found.values()) == INCONCLUSIVE


def test_a_suite_that_does_not_apply_is_told_and_decides_nothing() -> None:
    report, records = make_case()
    reason = "its answers are free text"
    report["suites"]["refusals"] = {
        "kind": "safety", "applies": False, "reason": reason, "items": 0, "metrics": {},
    }  # fmt: skip
    found, notes = judged(make_evidence(report, records))
    assert overall(found.values()) == PASS
    assert notes == (f"Suite refusals was not run: {reason}",)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1.0] * 50, [1.0] * 50, PASS),
        ([1.0] * 35 + [0.0] * 15, [1.0] * 50, FAIL),
        ([1.0] * 49 + [0.0], [1.0] * 50, PASS),
        ([0.5] * 50, [0.9, 1.0] * 25, FAIL),  # not of 0 and 1: by the bootstrap
        ([1.0] * 50, [None, *[1.0] * 49], INCONCLUSIVE),
        ([1.0] * 9, [1.0] * 9, INCONCLUSIVE),
    ],
)
def test_a_suite_beside_the_champion(ours: Scores, theirs: Scores, expected: str) -> None:
    case = changed(0, 0, won=60) | {"suites": suite(ours, theirs)}
    found, _ = judged(make_gate_evidence(**case))
    assert found["suite/attacks/champion"].verdict == expected
    assert overall(found.values()) == expected


# --- the judge -------------------------------------------------------------------------------


def with_judge(
    section: dict[str, Any], ours: Scores, theirs: Scores | None = None, rows: int = 50
) -> Evidence:
    """A report whose judge scored the first items of the test split."""
    case: dict[str, Any] = changed(0, 0, won=60) if theirs else {}
    rest: list[float | None] = [None] * (ITEMS - len(ours))
    scores = {"tuned": [*ours, *rest]} | ({"champion": [*theirs, *rest]} if theirs else {})
    report, records = make_case(metrics={"judge": scores}, **case)
    complete = {"configured": True, "vote": True, "complete": True, "reason": "Its kappa is 0.9"}
    report["judge"] = complete | {"rows": rows} | section
    return make_evidence(report, records)


HIGH, LOW = [1.0, 0.75] * 25, [0.5, 0.25] * 25


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(HIGH, None, {"floor": PASS}), (LOW, None, {"floor": FAIL}),
     (HIGH, HIGH, {"floor": PASS, "champion": PASS}),
     (HIGH, LOW, {"floor": PASS, "champion": PASS}),
     (LOW, HIGH, {"floor": FAIL, "champion": FAIL})],
)  # fmt: skip
def test_a_judge_with_a_vote_votes(
    ours: Scores, theirs: Scores | None, expected: dict[str, str]
) -> None:
    found, _ = judged(with_judge({}, ours, theirs), minimum_judge=0.8)
    parts = {name: item.verdict for name, item in found.items() if name.startswith("judge")}
    assert parts == {f"judge/{name}": said for name, said in expected.items()}


def test_a_judge_without_a_vote_decides_nothing() -> None:
    section = {"vote": False, "reason": "Its kappa is 0.2"}
    found, notes = judged(with_judge(section, LOW), minimum_judge=0.8)
    assert overall(found.values()) == PASS
    assert notes == ("The judge has no vote. Its kappa is 0.2",)


@pytest.mark.parametrize(
    "section",
    [
        {"vote": False, "complete": False, "reason": "timed out 3 times"},
        {"vote": False, "complete": None, "reason": "timed out 3 times"},
        {"rows": 51},  # more promised than there are records
    ],
)
def test_a_judge_that_timed_out_leaves_no_verdict(section: dict[str, Any]) -> None:
    found, _ = judged(with_judge(section, HIGH))
    undecided = [item for name, item in found.items() if name.startswith("judge")]
    assert [item.verdict for item in undecided] == [INCONCLUSIVE]
    assert overall(found.values()) == INCONCLUSIVE
