"""The columns of a drift report, their distances, and the verdict."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.monitoring.drift import distances, features, findings, sketches, verdict
from mlops_assets.monitoring.drift.features import Column, Exchange, Known
from mlops_assets.monitoring.drift.findings import DATA, PREDICTION, Finding
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.multiple_tests import holm

SPEC = DriftSpec()
COLUMNS = [
    Column(str(number), PREDICTION if number == 5 else DATA, kind)
    for number, kind in enumerate([features.NUMERIC] * 3 + [features.CATEGORICAL] * 3)
]
"""Of the kinds that we meet: lengths, a share, few classes, 77 classes."""

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
    known = Known(features.document_frequency(["a b c", "a b", "a d d"]), {}, {})

    def share(text: str, *, in_vocabulary: bool) -> Any:
        exchanges = [Exchange(text, "", {})]
        values = features.column_values(exchanges, known, in_vocabulary=in_vocabulary)
        return values["unknown_words"][0]

    assert share("a d d", in_vocabulary=True) == pytest.approx(2 / 3)
    assert share("a d x", in_vocabulary=False) == pytest.approx(1 / 3)
    assert share("", in_vocabulary=False) == 0


SENTENCE = Exchange("Where is 1 parcel?", "I cannot help with that.", {"channel": "fax"})
TICKET = Exchange("parcel", '{"queue": "a"}', {})
BROKEN = Exchange("parcel", " ", {"channel": "web"})


@pytest.mark.parametrize(
    ("labels", "exchange", "expected"),
    [
        (
            {},
            SENTENCE,
            {
                "words": 4,
                "characters": 18,
                "unknown_words": 0.75,
                "slice_channel": features.OTHER,
                "answer_words": 5,
                "empty_answers": "no",
                "refusals": "yes",
            },
        ),
        (
            {"queue": ("a",)},
            TICKET,
            {
                "slice_channel": features.ABSENT,
                "predicted_queue": "a",
                "invalid_answers": "no",
                "empty_answers": "no",
                "refusals": "no",
            },
        ),
        (
            {"queue": ("a",)},
            BROKEN,
            {
                "slice_channel": "web",
                "predicted_queue": features.INVALID,
                "invalid_answers": "yes",
                "empty_answers": "yes",
            },
        ),
    ],
)
def test_the_columns_of_a_request_and_its_answer(
    labels: dict[str, tuple[str]], exchange: Exchange, expected: dict[str, Any]
) -> None:
    known = Known({"parcel": 1}, labels, {"channel": ("web",)})
    values = features.column_values([exchange], known)
    assert list(values) == [column.name for column in known.columns]
    assert {name: values[name][0] for name in expected} == expected


def test_a_slice_of_many_values_has_a_bound() -> None:
    given = [{"customer": f"c{number % 900}"} for number in range(2_000)]
    assert len(features.slice_classes(given)["customer"]) == features.MOST_CLASSES


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


def numbers_apart(before: Sequence[float], now: Sequence[float]) -> tuple[float, float]:
    return distances.compare(sketches.numbers(before), sketches.numbers(now), 0)


def test_distances_of_known_samples() -> None:
    assert numbers_apart([1, 2, 3, 4], [3, 4, 5, 6])[0] == 0.5
    assert numbers_apart([3, 4, 5, 6], [1, 2, 3, 4])[0] == 0.5
    few, more = Counter({"a": 8, "b": 2}), Counter({"a": 5, "b": 5})
    assert distances.compare(few, more, 0)[0] == pytest.approx(0.3)
    effect, p = distances.compare(Counter(a=50), Counter(b=50), 0)
    assert (effect, p) == (1.0, pytest.approx(1e-4))
    assert distances.compare(Counter(a=50), Counter(a=50), 0) == (0.0, 1.0)
    same = sketches.numbers([1.0] * 20)
    assert distances.psi(same, same) == 0
    assert distances.psi(Counter("ab"), Counter("ab")) == 0


def test_without_values_there_is_no_distance() -> None:
    for some, none in ((Counter("ab"), Counter("")), (sketches.numbers([1]), sketches.numbers([]))):
        for sides in ((none, some), (some, none)):
            assert all(map(math.isnan, (*distances.compare(*sides, 0), distances.psi(*sides))))


@pytest.mark.parametrize("shift", [0, 0.02, 1])
@pytest.mark.parametrize("records", [100, 3_000, 60_000])
def test_the_distance_of_numbers_is_that_of_scipy(records: int, shift: float) -> None:
    import numpy as np
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(records)
    before = rng.poisson(20, 2_000).astype(float)
    now = np.where(rng.random(records) < 0.5, rng.poisson(20, records), rng.gamma(9, 2, records))
    expected = ks_2samp(before, now + shift, method="asymp")
    exact = records <= sketches.EXACT
    effect, p = numbers_apart(before.tolist(), (now + shift).tolist())
    assert effect == pytest.approx(expected.statistic, abs=1e-12 if exact else 2e-4)
    assert p == pytest.approx(expected.pvalue, abs=0.01 if exact else 0.02)


@pytest.mark.parametrize(("share", "calm"), [(0.53, False), (0.51, True)])
def test_the_permutation_test_agrees_with_chi_square_where_that_holds(
    share: float, calm: bool
) -> None:
    import numpy as np
    from scipy.stats import chi2_contingency

    rng = np.random.default_rng(3)
    before, now = rng.choice(list("ab"), 3000), rng.choice(list("ab"), 800, p=[share, 1 - share])
    counts = [Counter(side.tolist()) for side in (before, now)]
    table = [[side[name] for name in "ab"] for side in counts]
    expected = chi2_contingency(table, correction=False).pvalue
    _, p = distances.compare(*counts, 0)
    # The shuffling stops early where there is nothing to find: its p is then less precise.
    assert p == pytest.approx(expected, abs=0.12 if calm else 0.02)


# --- the verdict --------------------------------------------------------------------------------


def frame(seed: int, current: int, reference: int = 2_000, shift: float = 0) -> list[Any]:
    """Sketches of both sides of ``COLUMNS``."""
    import numpy as np

    rng = np.random.default_rng(seed)

    def side(n: int, shift: float) -> list[Any]:
        return [
            (rng.poisson(20, n) + shift).astype(float).tolist(),
            rng.gamma(4, 30, n).tolist(),
            rng.beta(0.3, 20, n).tolist(),
            rng.choice(list("abc"), n, p=[0.45, 0.3, 0.25]).tolist(),
            rng.choice(list("abcdef"), n).tolist(),
            rng.choice(77, n).astype(str).tolist(),
        ]

    sides = [side(reference, 0), side(current, shift)]
    return [
        sketches.sketch(COLUMNS, dict(zip(map(str, range(6)), each, strict=True))) for each in sides
    ]


def found(sides: Sequence[Any], spec: DriftSpec = SPEC) -> list[Finding]:
    return verdict.compare(COLUMNS, *sides, spec)


def verdict_of(sides: Sequence[Any], spec: DriftSpec = SPEC) -> findings.Verdict:
    return findings.decide(found(sides, spec), spec.alpha)


@pytest.mark.parametrize("records", [200, 1_000])
def test_false_alarms_are_rare_where_nothing_changed(records: int) -> None:
    windows = [frame(seed, records) for seed in range(25)]
    alarms = sum(verdict_of(window).verdict == findings.DRIFT for window in windows)
    assert alarms <= 1  # alpha is 0.01: two in 25 windows have a chance of 3% at most
    if records == 200:
        psi = sum(max(verdict.population_stability(*each).values()) > 0.1 for each in windows)
        assert psi >= 12  # what deciding by PSI would have cost


@pytest.mark.parametrize("records", [200, 1_000])
def test_a_shift_is_found_and_named(records: int) -> None:
    shifted = [verdict_of(frame(seed, records, shift=3)) for seed in range(10)]
    assert all((each.verdict, each.drifted) == (findings.DRIFT, ("0",)) for each in shifted)


def test_significance_alone_is_no_drift() -> None:
    sides = frame(0, 20_000, reference=20_000, shift=0.3)
    decided = verdict_of(sides)
    assert decided.corrected["0"] < SPEC.alpha
    assert found(sides)[0].effect < SPEC.min_effect
    assert decided.verdict == findings.NO_DRIFT


def test_effect_alone_is_no_drift() -> None:
    column = Column("a", findings.DATA, features.CATEGORICAL)
    sides = [{"a": Counter(x=20, y=20)}, {"a": Counter(x=19, y=11)}]
    (compared,) = verdict.compare([column], *sides, DriftSpec(min_records=30))
    assert compared.effect >= compared.min_effect
    assert findings.decide([compared], SPEC.alpha).layers[findings.DATA].verdict == (
        findings.NO_DRIFT
    )


@pytest.mark.parametrize(("records", "reference"), [(99, 2_000), (0, 2_000), (2_000, 99)])
def test_too_few_records_give_no_verdict(records: int, reference: int) -> None:
    assert verdict_of(frame(0, records, reference, shift=9)).verdict == findings.NO_VERDICT


def test_a_missing_value_gives_no_verdict() -> None:
    compared = found(frame(0, 500, shift=9))
    spoilt = [replace(each, effect=float("nan")) if each.name == "3" else each for each in compared]
    decided = findings.decide(spoilt, SPEC.alpha)
    assert decided.layers[findings.DATA].reason == "no value for 3"
    assert decided.verdict == findings.NO_VERDICT


def test_a_slice_that_production_does_not_log_is_left_out() -> None:
    column = Column("slice_channel", findings.DATA, features.CATEGORICAL)
    sides = [{column.name: Counter(web=500)}, {column.name: Counter({features.ABSENT: 500})}]
    (left_out,) = verdict.compare([column], *sides, SPEC)
    assert left_out.left_out == "production does not log it"


def test_a_rate_counts_from_a_smaller_change_on() -> None:
    columns = [
        Column(kind, findings.PREDICTION, kind) for kind in (features.RATE, features.CATEGORICAL)
    ]
    before, now = Counter(no=1_000), Counter(no=930, yes=70)
    sides = [{kind: side for kind, _, _ in columns} for side in (before, now)]
    decided = findings.decide(verdict.compare(columns, *sides, SPEC), SPEC.alpha)
    assert decided.layers[findings.PREDICTION].columns == (features.RATE,)
