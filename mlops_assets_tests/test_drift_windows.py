"""How often the verdict alarms on the shipped generator: the benchmark's measure, made small."""

import pytest

from mlops_assets.monitoring.drift.findings import DRIFT, NO_DRIFT
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets_tests.drift_windows import World, tickets

SPEC, ROWS = DriftSpec(), 1_500


@pytest.fixture(scope="module")
def world() -> World:
    return tickets(4_000, 6_000, 1_000)


def test_windows_in_which_nothing_changed_raise_no_alarm(world: World) -> None:
    verdicts = []
    for seed in range(20):
        drawn = world.draw(ROWS, seed)
        verdicts += [drawn.verdict(size, SPEC).verdict for size in (100, 200, 1_000)]
    assert set(verdicts) <= {DRIFT, NO_DRIFT}
    assert verdicts.count(DRIFT) <= 2  # at alpha 1% three of 60 have a chance of 2%


def test_half_of_the_records_shifted_are_always_found(world: World) -> None:
    for seed in range(5):
        found = world.draw(ROWS, seed).verdict(100, SPEC, share=0.5)
        assert found.verdict == DRIFT
        assert {"slice_channel", "unknown_words"} & set(found.drifted)
