"""The simulated rollouts: a few of each, so that the benchmark keeps running and its sense."""

import pytest

from mlops_assets_tests import bench_rollout
from mlops_assets_tests.bench_rollout import Scenario, sequential_after_shadow, simulate


def test_candidates_that_are_alike_get_through_and_harmful_ones_do_not() -> None:
    ours, fixed, repeated = bench_rollout.RULES
    alike = simulate(Scenario("alike"), 25, ours)
    assert (alike.canaries, alike.at_deadline) == (25, 0)
    assert alike.rolled_back <= 1
    assert simulate(Scenario("alike"), 5, sequential_after_shadow).rolled_back == 0
    harmful = simulate(Scenario("worse", worse=0.05), 10, ours)
    assert harmful.rolled_back == 10
    assert max(harmful.served) < 1000
    for peer in (fixed, repeated):
        assert simulate(Scenario("alike"), 25, peer).rolled_back > 0


def test_the_tables_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ALIKE", "HARMFUL"):
        rows = getattr(bench_rollout, name)
        monkeypatch.setattr(bench_rollout, name, tuple((one, 1) for one, _ in rows[:2]))
    monkeypatch.setattr(bench_rollout, "FEWER", 1)
    monkeypatch.setattr(bench_rollout, "EXPERIMENTS", 1)
    bench_rollout.rollout()
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| ") for line in printed) == 4 + 3 + 5
