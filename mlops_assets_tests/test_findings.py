"""How findings add up: the verdict of each layer, and over all of them."""

from dataclasses import replace

import pytest

from mlops_assets.monitoring.drift import findings
from mlops_assets.monitoring.drift.findings import (
    BUSINESS,
    CONCEPT,
    DATA,
    DRIFT,
    NO_DRIFT,
    NO_VERDICT,
    PREDICTION,
    Finding,
    decide,
)

ALPHA = 0.01
NAN = float("nan")


def finding(layer: str, effect: float = 0.0, p: float = 1.0, left_out: str = "") -> Finding:
    return Finding(layer, layer, "numeric", effect, 0.1, p, 500, 500, left_out=left_out)


CALM = [finding(DATA), finding(PREDICTION)]


@pytest.mark.parametrize(
    ("more", "expected", "drifted"),
    [
        ([], NO_DRIFT, ()),
        ([finding(BUSINESS), finding(CONCEPT)], NO_DRIFT, ()),
        ([finding(BUSINESS, left_out="nobody voted")], NO_DRIFT, ()),
        ([finding(BUSINESS, NAN, NAN)], NO_DRIFT, ()),
        ([finding(CONCEPT, 0.2, 1e-4)], DRIFT, (CONCEPT,)),
        ([finding(BUSINESS, 0.2, 1e-4), finding(CONCEPT, 0.2, 1e-4)], DRIFT, (BUSINESS, CONCEPT)),
        ([finding(CONCEPT, 0.09, 1e-9)], NO_DRIFT, ()),  # significance alone
        ([finding(CONCEPT, 0.9, 0.004)], NO_DRIFT, ()),  # 3 * 0.004 > alpha
        ([finding(CONCEPT, 0.9, 1e-9, left_out="3 labels, 50 are needed")], NO_DRIFT, ()),
    ],
)
def test_the_verdict_over_all_layers(
    more: list[Finding], expected: str, drifted: tuple[str, ...]
) -> None:
    found = decide([*CALM, *more], ALPHA)
    assert (found.verdict, found.drifted) == (expected, drifted)
    assert {name for name, layer in found.layers.items() if layer.columns} == set(drifted)


@pytest.mark.parametrize(
    ("layer", "spoilt", "reason"),
    [
        (DATA, finding(DATA, left_out="9 records, 200 are needed"), "9 records, 200 are needed"),
        (PREDICTION, finding(PREDICTION, NAN, 0.5), "no value for prediction"),
        (PREDICTION, finding(PREDICTION, 0.5, NAN), "no value for prediction"),
    ],
)
def test_no_verdict_of_data_or_prediction_is_none_at_all(
    layer: str, spoilt: Finding, reason: str
) -> None:
    others = [each for each in CALM if each.layer != layer]
    found = decide([*others, spoilt], ALPHA)
    assert (found.verdict, found.reason) == (NO_VERDICT, reason)
    assert found.layers[layer].verdict == NO_VERDICT
    concept = decide([*others, spoilt, finding(CONCEPT, 0.5, 1e-6)], ALPHA)
    assert (concept.verdict, concept.drifted) == (DRIFT, (CONCEPT,))


def test_a_missing_value_does_not_make_the_others_easier() -> None:
    near = finding(CONCEPT, 0.5, 0.004)
    missing = [replace(finding(DATA, NAN, NAN), name=f"column {n}") for n in range(2)]
    assert decide([near, *missing], ALPHA).verdict == NO_VERDICT
    assert decide([near, *CALM[:1]], ALPHA).verdict == DRIFT


def test_nothing_compared_is_no_verdict() -> None:
    found = decide([], ALPHA)
    assert (found.verdict, found.reason) == (NO_VERDICT, "nothing was compared")


def test_a_name_stands_for_one_finding() -> None:
    with pytest.raises(ValueError, match="same name"):
        decide([finding(DATA), finding(DATA)], ALPHA)


def test_a_finding_as_json_has_no_nan() -> None:
    spoilt = finding(DATA, NAN, NAN)
    shown = findings.as_json(spoilt, decide([spoilt], ALPHA))
    assert (shown["effect"], shown["p"], shown["p_corrected"]) == (None, None, 1.0)
    assert shown["drifted"] is False
