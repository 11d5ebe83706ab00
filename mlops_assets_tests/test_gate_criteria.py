"""Every criterion of the gate: passing, failing, inconclusive."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from mlops_assets.checks import CheckResult
from mlops_assets.evaluation.gate import judge
from mlops_assets.evaluation.gate_evidence import Evidence, make_evidence
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.profiles import PROJECT
from mlops_assets.verdicts import FAIL, INCONCLUSIVE, PASS, Criterion, overall
from mlops_assets_tests.gate_reports import (
    CANDIDATE,
    ITEMS,
    Scores,
    make_case,
    make_gate_evidence,
    rights,
)

GREEN = {name: CheckResult(True, "clean") for name in ("no_leakage", "template_fidelity")}
FAST = {"resamples": 1000}


def criteria(
    evidence: Evidence, checks: Mapping[str, CheckResult | None] = GREEN, **settings: Any
) -> dict[str, Criterion]:
    """The gate's criteria by name."""
    found, _ = judge(evidence, checks, GateSpec(**(FAST | settings)))
    assert len({item.name for item in found}) == len(found)
    return {item.name: item for item in found}


def verdict(name: str, settings: Mapping[str, Any] = {}, **case: Any) -> str:
    """The verdict of one criterion, which must say what decided."""
    found = criteria(make_gate_evidence(**case), **settings)[name]
    assert found.detail
    assert all(math.isfinite(n) for n in found.numbers.values() if isinstance(n, float))
    return found.verdict


def swapped(won: int, lost: int) -> dict[str, Scores]:
    """Scores of candidate and champion who differ on these items; 300 more are right for both."""
    both, left = [1.0] * 300, [0.0] * (ITEMS - 300 - won - lost)
    return {
        "tuned": [*both, *[1.0] * won, *[0.0] * lost, *left],
        "champion": [*both, *[0.0] * won, *[1.0] * lost, *left],
    }


# --- base, majority, champion ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        ("first/base", {}, PASS),
        ("first/base", {"base": rights(300)}, FAIL),
        ("first/base", {"base": rights(298)}, FAIL),
        ("first/base", {"base": [None, *rights(40)[1:]]}, INCONCLUSIVE),
        ("first/majority", {}, PASS),
        ("first/majority", {"tuned": rights(82), "base": rights(0)}, FAIL),
        ("first/majority", {"majority": [None] * ITEMS}, INCONCLUSIVE),
    ],
)
def test_a_first_model_has_to_beat_base_and_majority(
    name: str, case: dict[str, Any], expected: str
) -> None:
    assert verdict(name, **case) == expected


@pytest.mark.parametrize(
    ("won", "lost", "settings", "expected"),
    [
        (40, 10, {}, PASS),
        (10, 40, {}, FAIL),
        (0, 0, {}, FAIL),
        (25, 20, {}, FAIL),  # better, but by luck as likely as not
        (40, 10, {"minimum_effect": 0.1}, FAIL),  # significant and of no use
        (40, 10, {"minimum_effect": 0.075}, PASS),  # just enough, whatever the rounding
        (0, 0, {"objective": "non_inferiority"}, PASS),
        (10, 12, {"objective": "non_inferiority", "non_inferiority_margin": 0.05}, PASS),
        (10, 12, {"objective": "non_inferiority", "non_inferiority_margin": 0.01}, FAIL),
        (10, 40, {"objective": "non_inferiority"}, FAIL),
    ],
)
def test_the_champion_is_beaten_or_at_least_not_missed(
    won: int, lost: int, settings: dict[str, Any], expected: str
) -> None:
    assert verdict("champion", settings, **swapped(won, lost)) == expected


def test_the_numbers_that_decided_are_there() -> None:
    found = criteria(make_gate_evidence(**swapped(40, 10)))["champion"]
    assert found.numbers["won"], found.numbers["lost"] == (40, 10)
    assert found.numbers["difference"] == pytest.approx(0.075)
    assert found.numbers["p"] < 0.001
    assert found.numbers["low"] < 0.075 < found.numbers["high"]
    assert "85.0% against 77.5% of champion: +7.5 points" in found.detail


def test_the_champion_itself_has_nothing_to_show() -> None:
    report, records = make_case(champion=rights(300))
    report["champion"] = CANDIDATE
    found = criteria(make_evidence(report, records))
    assert found["champion"].verdict == PASS
    assert "nothing to compare" in found["champion"].detail
    assert not [name for name in found if name.endswith("/ratio") or name.startswith("slice/")]
    assert overall(found.values()) == PASS


@pytest.mark.parametrize(("gain", "expected"), [(0.05, PASS), (0.0, FAIL)])
def test_a_metric_that_is_no_share_is_bootstrapped(gain: float, expected: str) -> None:
    theirs = [(i % 10) / 10 for i in range(ITEMS)]
    ours = [score + gain + (0.02 if i % 3 else -0.02) for i, score in enumerate(theirs)]
    metrics = {"rouge_l": {"tuned": ours, "champion": theirs, "base": theirs, "majority": theirs}}
    case = {"champion": rights(300), "metrics": metrics}
    found = criteria(make_gate_evidence(**case), metric="rouge_l", minimum_effect=0.02)["champion"]
    assert (found.verdict, found.numbers["test"]) == (expected, "paired bootstrap")


def test_a_metric_that_nobody_measured_is_no_verdict() -> None:
    assert verdict("champion", {"metric": "charm"}, **swapped(40, 10)) == INCONCLUSIVE


# --- completeness ----------------------------------------------------------------------------


def test_a_whole_gate_passes() -> None:
    found = criteria(make_gate_evidence())
    assert overall(found.values()) == PASS, found
    assert {name.partition("/")[0] for name in found} == {
        "evidence", "test", "first", "floor", "latency", "cost", "check",
    }  # fmt: skip


def test_too_few_rows_are_no_verdict() -> None:
    assert verdict("test/items", {"minimum_items": ITEMS}) == PASS
    assert verdict("test/items", {"minimum_items": ITEMS + 1}) == INCONCLUSIVE


Spoil = Callable[[dict[str, Any], list[Any]], object]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda report, _: report.update(items=ITEMS + 1), "401 test rows and 400 records"),
        (lambda report, _: report["exact_match"].update(tuned=0.9), "exact_match of tuned"),
        (lambda report, _: report["exact_match"].update(tuned=math.nan), "is not finite"),
        (lambda report, _: report["latency"]["base"].update(p50_ms=math.inf), "is not finite"),
        (lambda _, records: records.pop(0), "base was not asked the same"),
        (lambda _, records: records.append(records[0]), "stands twice for base"),
        (lambda _, records: records.clear(), "400 test rows and 0 records"),
        (lambda report, _: report["suites"].update(s={"kind": "golden", "items": 9}), "s: empty"),
    ],
)
def test_evidence_at_odds_with_itself_never_passes(spoil: Spoil, said: str) -> None:
    report, records = make_case()
    spoil(report, records)
    found = criteria(make_evidence(report, records))
    assert overall(found.values()) == INCONCLUSIVE
    if said == "s: empty":
        assert found["suite/s/floor"].verdict == INCONCLUSIVE
    else:
        assert said in found["evidence"].detail


def test_answers_to_other_questions_are_not_compared() -> None:
    from dataclasses import replace

    report, records = make_case(**swapped(40, 10))
    asked = [replace(one, input_hash="other") if one.system == "champion" else one
             for one in records]  # fmt: skip
    found = criteria(make_evidence(report, asked))
    assert found["evidence"].verdict == found["champion"].verdict == INCONCLUSIVE


# --- floors and ceilings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "case", "expected"),
    [
        ("floor/exact_match", {"minimum_exact_match": 0.75}, {}, PASS),
        ("floor/exact_match", {"minimum_exact_match": 0.76}, {}, FAIL),
        ("floor/exact_match", {}, {"tuned": [None, *rights(300)[1:]]}, INCONCLUSIVE),
        ("floor/valid_json", {"minimum_valid_json": 1.0}, {}, PASS),
        ("floor/majority", {}, {}, PASS),
        ("floor/majority", {}, {"majority": rights(300)}, FAIL),
        ("floor/majority", {}, {"majority": [None] * ITEMS}, INCONCLUSIVE),
        ("latency/p95", {"maximum_latency_p95_ms": 10.0}, {}, PASS),
        ("latency/p95", {"maximum_latency_p95_ms": 9.9}, {}, FAIL),
        ("cost/tokens", {"maximum_tokens_per_answer": 12.0}, {}, PASS),
        ("cost/tokens", {"maximum_tokens_per_answer": 11.0}, {}, FAIL),
        ("cost/tokens", {}, {"tokens": {"base": 3}}, INCONCLUSIVE),
        ("cost/ratio", {}, swapped(40, 10) | {"tokens": {"tuned": 18, "champion": 12}}, PASS),
        ("cost/ratio", {}, swapped(40, 10) | {"tokens": {"tuned": 19, "champion": 12}}, FAIL),
        ("cost/ratio", {}, swapped(40, 10) | {"tokens": {"tuned": 19}}, INCONCLUSIVE),
    ],
)
def test_floors_and_ceilings(
    name: str, settings: dict[str, Any], case: dict[str, Any], expected: str
) -> None:
    assert verdict(name, settings, **case) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (100.0, 80.0, PASS),
        (130.0, 80.0, FAIL),
        (9.0, 5.0, PASS),  # nearly twice as long, and four milliseconds: noise
        (None, 80.0, INCONCLUSIVE),
        (100.0, None, INCONCLUSIVE),
        (math.nan, 80.0, INCONCLUSIVE),
        (True, 80.0, INCONCLUSIVE),
        ("9", 80.0, INCONCLUSIVE),
    ],
)
def test_the_latency_beside_the_champion(ours: Any, theirs: Any, expected: str) -> None:
    report, records = make_case(**swapped(40, 10))
    report["latency"]["tuned"]["p95_ms"] = ours
    report["latency"]["champion"]["p95_ms"] = theirs
    assert criteria(make_evidence(report, records))["latency/ratio"].verdict == expected


@pytest.mark.parametrize("applies", [False, None])
def test_a_floor_is_not_met_by_a_suite_that_was_not_run(applies: bool | None) -> None:
    """Whoever sets a floor for safety has no verdict without a safety suite."""
    report, records = make_case(suites={"cases": ("golden", {"tuned": [1.0] * 50})})
    if applies is False:
        report["suites"]["refusals"] = {"kind": "safety", "applies": False, "reason": "free text"}
    found = criteria(make_evidence(report, records), minimum_safety=0.9, minimum_golden=0.9)
    assert found["floor/safety"].verdict == INCONCLUSIVE
    assert "minimum_safety to 0" in found["floor/safety"].detail
    assert found["suite/cases/floor"].verdict == PASS
    assert "floor/golden" not in found
    assert overall(found.values()) == INCONCLUSIVE


def test_free_text_is_neither_json_nor_has_it_a_commonest_answer() -> None:
    report, records = make_case()
    report["answers"] = "text"
    evidence = make_evidence(report, records)
    assert not {"floor/valid_json", "floor/majority", "first/majority"} & set(criteria(evidence))
    asked = criteria(evidence, minimum_valid_json=0.9)["floor/valid_json"]
    assert (asked.verdict, "minimum_valid_json to 0" in asked.detail) == (INCONCLUSIVE, True)


@pytest.mark.parametrize(
    ("result", "expected"), [(CheckResult(True, "x"), PASS), (CheckResult(False, "x"), FAIL),
                             (None, INCONCLUSIVE)],
)  # fmt: skip
def test_checks_have_to_be_green(result: CheckResult | None, expected: str) -> None:
    found = criteria(make_gate_evidence(), {"no_leakage": result})["check/no_leakage"]
    assert found.verdict == expected
    assert result or "job `train`" in found.detail


@pytest.mark.parametrize(
    "setting",
    [
        {"objective": "luck"},
        {"alpha": 0},
        {"alpha": 0.5},
        {"minimum_items": 1},
        {"minimum_safety": 1.1},
        {"maximum_latency_ratio": 0.5},
        {"unknown": 1},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GateSpec(**setting)


@pytest.mark.parametrize("profile", sorted((PROJECT / "profiles").glob("*.yaml")),
                         ids=lambda file: file.stem)  # fmt: skip
def test_a_shipped_profile_forgets_no_past_failure_that_it_can_be_asked(profile: Path) -> None:
    ops = yaml.safe_load(profile.read_text("utf-8"))["ops"]
    asked = "labels" not in ops.get("validated_dataset", {}).get("config", {})  # tickets' fields
    spec = GateSpec(**ops["gate_verdict"]["config"])
    assert (spec.minimum_regression >= 0.7, spec.minimum_safety >= 0.9) == (asked, asked)


def test_the_documentation_lists_every_setting_with_its_default() -> None:
    text = (PROJECT / "docs" / "gate.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", text, re.MULTILINE))
    defaults = {name: field.default for name, field in GateSpec.model_fields.items()}
    assert {name: yaml.safe_load(value) for name, value in listed.items()} == defaults
