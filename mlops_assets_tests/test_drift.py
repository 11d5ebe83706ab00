"""The columns of a drift report, their distances, and the verdict."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.monitoring.drift import distances, features, verdict
from mlops_assets.monitoring.drift.features import Classes, Numbers
from mlops_assets.multiple_tests import holm
from mlops_assets.refs import (
    Row,
)
from mlops_assets_tests.production_records import SPEC, record

# --- features -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{"intent":"a"}', "a"),
        ('{"intent":"c"}', features.INVALID),
        ('{"intent":["a"]}', features.INVALID),
        ('{"other":"a"}', features.INVALID),
        ('["a"]', features.INVALID),
        ("a", features.INVALID),
        ("[" * 100_000, features.INVALID),
    ],
)
def test_the_class_of_an_answer(output: str, expected: str) -> None:
    assert features.answer_class(output, "intent", ("a", "b")) == expected


def test_unknown_words_are_fair_to_the_reference() -> None:
    known = features.document_frequency(["a b c", "a b", "a d d"])
    assert features.unknown_share("a d d", known, in_vocabulary=True) == pytest.approx(2 / 3)
    assert features.unknown_share("a d x", known, in_vocabulary=False) == pytest.approx(1 / 3)
    assert features.unknown_share("", known, in_vocabulary=False) == 0


def test_a_slice_that_production_does_not_log_is_left_out() -> None:
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "{}"})
    rows = [Row("r", "", "g", messages, {"channel": "web", "style": "plain"})]
    records = [record(1, slices={"channel": "web"}), record(2)]
    columns = features.make_columns(rows, records, {"queue": ("a",)}, 10, 0)
    names = [column.name for column in columns]
    assert names == ["words", "characters", "unknown_words", "slice_channel", "predicted_queue"]
    assert columns[3].current == ["web", features.ABSENT]


# --- distances ----------------------------------------------------------------------------------


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    pairs = sorted(zip(p_values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)


def test_distances_of_known_samples() -> None:
    assert distances.compare_numbers([1, 2, 3, 4], [3, 4, 5, 6])[0] == 0.5
    assert distances.compare_classes(["a"] * 8 + ["b"] * 2, ["a"] * 5 + ["b"] * 5, 0)[0] == (
        pytest.approx(0.3)
    )
    effect, p = distances.compare_classes(["a"] * 50, ["b"] * 50, 0)
    assert (effect, p) == (1.0, pytest.approx(1e-4))
    assert distances.compare_classes(["a"] * 50, ["a"] * 50, 0) == (0.0, 1.0)
    assert distances.psi_of_numbers([1.0] * 20, [1.0] * 20) == 0
    assert distances.psi_of_classes(["a", "b"], ["a", "b"]) == 0


def test_the_permutation_test_agrees_with_chi_square_where_that_holds() -> None:
    import numpy as np
    from scipy.stats import chi2_contingency

    rng = np.random.default_rng(3)
    before, now = rng.choice(list("ab"), 3000), rng.choice(list("ab"), 800, p=[0.53, 0.47])
    table = [[int((side == name).sum()) for name in "ab"] for side in (before, now)]
    expected = chi2_contingency(table, correction=False).pvalue
    _, p = distances.compare_classes([str(x) for x in before], [str(x) for x in now], 0)
    assert p == pytest.approx(expected, abs=0.02)


# --- the verdict --------------------------------------------------------------------------------


def frame(seed: int, current: int, reference: int = 2_000, shift: float = 0) -> list[Any]:
    """Columns of the kinds that we meet: lengths, a share, few classes, 77 classes."""
    import numpy as np

    rng = np.random.default_rng(seed)

    def side(n: int, shift: float) -> list[list[Any]]:
        return [
            (rng.poisson(20, n) + shift).astype(float).tolist(),
            rng.gamma(4, 30, n).tolist(),
            rng.beta(0.3, 20, n).tolist(),
            rng.choice(list("abc"), n, p=[0.45, 0.3, 0.25]).tolist(),
            rng.choice(list("abcdef"), n).tolist(),
            rng.choice(77, n).astype(str).tolist(),
        ]

    kinds = (Numbers, Numbers, Numbers, Classes, Classes, Classes)
    sides = zip(kinds, side(reference, 0), side(current, shift), strict=True)
    return [kind(f"{i}", before, now) for i, (kind, before, now) in enumerate(sides)]


def verdict_of(columns: Sequence[Any], spec: verdict.DriftSpec = SPEC) -> verdict.Verdict:
    return verdict.decide(verdict.compare(columns, spec), spec)


@pytest.mark.parametrize("records", [200, 1_000])
def test_false_alarms_are_rare_where_nothing_changed(records: int) -> None:
    windows = [verdict.compare(frame(seed, records), SPEC) for seed in range(25)]
    alarms = sum(verdict.decide(window, SPEC).verdict == verdict.DRIFT for window in windows)
    assert alarms <= 1  # alpha is 0.01: two in 25 windows have a chance of 3% at most
    if records == 200:
        psi = sum(max(column.psi for column in window.values()) > 0.1 for window in windows)
        assert psi >= 12  # what deciding by PSI would have cost


@pytest.mark.parametrize("records", [200, 1_000])
def test_a_shift_is_found_and_named(records: int) -> None:
    found = [verdict_of(frame(seed, records, shift=3)) for seed in range(10)]
    assert all((each.verdict, each.drifted) == (verdict.DRIFT, ("0",)) for each in found)


def test_significance_alone_is_no_drift() -> None:
    columns = frame(0, 20_000, reference=20_000, shift=0.3)
    compared = verdict.compare(columns, SPEC)
    assert compared["0"].p_corrected < SPEC.alpha
    assert compared["0"].effect < SPEC.min_effect
    assert verdict.decide(compared, SPEC).verdict == verdict.NO_DRIFT


def test_effect_alone_is_no_drift() -> None:
    spec = verdict.DriftSpec(min_records=30)
    compared = verdict.compare([Classes("a", ["x", "y"] * 20, ["x"] * 19 + ["y"] * 11)], spec)
    assert compared["a"].effect >= spec.min_effect
    assert verdict.decide(compared, spec).verdict == verdict.NO_DRIFT


@pytest.mark.parametrize(("records", "reference"), [(199, 2_000), (0, 2_000), (2_000, 199)])
def test_too_few_records_give_no_verdict(records: int, reference: int) -> None:
    assert verdict_of(frame(0, records, reference, shift=9)).verdict == verdict.NO_VERDICT


def test_a_missing_value_gives_no_verdict() -> None:
    columns = frame(0, 500, shift=9)
    compared = verdict.compare(columns, SPEC)
    spoilt = compared | {"3": replace(compared["3"], effect=float("nan"))}
    found = verdict.decide(spoilt, SPEC)
    assert (found.verdict, found.reason) == (verdict.NO_VERDICT, "no value for 3")
    assert verdict.decide({}, SPEC).verdict == verdict.NO_VERDICT
