"""How often the verdict alarms on the shipped generator: the benchmark's measure, made small."""

from dataclasses import replace

import numpy as np
import pytest

from mlops_assets.monitoring.drift.features import Exchange, column_values, document_frequency
from mlops_assets.monitoring.drift.findings import DRIFT, NO_DRIFT
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets_tests.drift_windows import World, tickets

SPEC, ROWS = DriftSpec(), 1_500


@pytest.fixture(scope="module")
def world() -> World:
    return tickets(4_000, 6_000, 1_000)


def test_what_is_drawn_has_the_columns_that_the_report_would_have() -> None:
    rows = [Exchange(text, "yes", {}) for text in ("a parcel", "a a bill", "", "a parcel late")]
    drawn = World.of({}, rows)
    chosen = np.array([0, 1, 2])
    known = replace(drawn.known, vocabulary=document_frequency(row.text for row in rows[:3]))
    frequency = drawn.train.frequency(chosen)
    for taken, own in ((chosen, 1), (np.array([3]), 0)):
        values = drawn.train.take(taken, frequency, own)
        expected = column_values([rows[row] for row in taken], known, in_vocabulary=bool(own))
        assert values == {name: list(each) for name, each in expected.items()}


def test_windows_in_which_nothing_changed_raise_no_alarm(world: World) -> None:
    verdicts = []
    for seed in range(60):
        drawn = world.draw(ROWS, seed)
        verdicts += [drawn.verdict(size, SPEC).verdict for size in (100, 200, 1_000)]
    assert set(verdicts) <= {DRIFT, NO_DRIFT}
    assert verdicts.count(DRIFT) <= 5  # at alpha 1% six of 180 have a chance of 1%


def test_half_of_the_records_shifted_are_always_found(world: World) -> None:
    for seed in range(5):
        found = world.draw(ROWS, seed).verdict(100, SPEC, share=0.5)
        assert found.verdict == DRIFT
        assert {"slice_channel", "unknown_words"} & set(found.drifted)
