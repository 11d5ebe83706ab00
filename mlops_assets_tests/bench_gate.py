"""How often the gate promotes what is no better, and how often it sees what is.

Every simulated gate is the real one with its default settings: the test against the champion on
the whole split, and ten slices under Holm's correction. Beside it stands the gate that asks
whether the mean is larger.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from mlops_assets.checks import CheckResult
from mlops_assets.evaluation.gate import judge
from mlops_assets.evaluation.gate_evidence import Evidence, Suite
from mlops_assets.evaluation.gate_spec import GateSpec
from mlops_assets.evaluation.records import TEST
from mlops_assets.verdicts import FAIL, PASS, overall

GATES = 2000
ITEMS = (500, 3000)
POINTS = (0, 1, 2, 5)
AGREE_RIGHT, APART = 0.8, 0.1
"""Share of rows that both answer right, and of those on which just one of the two is right."""
SLICES = {"channel": 3, "language": 2, "product": 5}
HURT = 0.2
"""Share of its rows that a candidate loses on one product, in the last table."""
SPEC = GateSpec()
GREEN = {"no_leakage": CheckResult(True, ""), "template_fidelity": CheckResult(True, "")}
REPORT = {
    "answers": "json",
    "latency": {name: {"p95_ms": 10.0} for name in ("tuned", "champion")},
}


@dataclass
class Count:
    """Outcomes of simulated gates."""

    gates: int = 0
    promoted: int = 0
    larger: int = 0
    """Gates in which the candidate's mean was the larger one."""
    slices: int = 0
    """Gates in which a slice failed."""


def gate() -> None:
    """Print false promotions and power, for two sizes of test split."""
    started = time.perf_counter()
    dice = np.random.default_rng(20)
    print(f"\n{GATES:,} gates a row, alpha {SPEC.alpha:g}, least effect"
          f" {100 * SPEC.minimum_effect:g} point, {sum(SLICES.values())} slices\n")  # fmt: skip
    print("| test rows | true difference | promoted by the gate | 95% interval"
          " | promoted because the mean is larger | a slice failed |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for items in ITEMS:
        for points in POINTS:
            count = simulate(dice, items, points / 100, GATES)
            what = f"{points} point{'s' * (points > 1)}" if points else "none"
            print(_row(items, what, count), flush=True)
    for items in ITEMS:
        count = simulate(dice, items, 0.06, GATES, HURT)
        what = f"6 points, but {100 * HURT:g} lost on one product"
        print(_row(items, what, count), flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


def simulate(
    dice: np.random.Generator, items: int, difference: float, gates: int, hurt: float = 0.0
) -> Count:
    """Judge ``gates`` candidates whose true gain over the champion is ``difference``.

    With ``hurt`` they also lose that share of the rows of one product.
    """
    count = Count()
    for evidence in _cases(dice, items, difference, gates, hurt):
        criteria, _ = judge(evidence, GREEN, SPEC)
        count.gates += 1
        count.promoted += overall(criteria) == PASS
        count.slices += any(one.verdict == FAIL and "slice/" in one.name for one in criteria)
        ours, theirs = (evidence.test.of(name) for name in ("tuned", "champion"))
        assert ours is not None
        assert theirs is not None
        count.larger += bool(ours.mean() > theirs.mean())
    return count


def _cases(
    dice: np.random.Generator, items: int, difference: float, gates: int, hurt: float
) -> Iterator[Evidence]:
    edges = np.cumsum([AGREE_RIGHT, APART / 2 + difference / 2, APART / 2 - difference / 2])
    for _ in range(gates):
        kind = np.searchsorted(edges, dice.random(items), side="right")  # both, ours, theirs, none
        ours, theirs = (kind <= 1) * 1.0, ((kind == 0) | (kind == 2)) * 1.0
        slices = {name: _values(dice, items, count) for name, count in SLICES.items()}
        if hurt:
            at = slices["product"]["0"]
            ours[at] *= dice.random(len(at)) >= hurt
        majority = np.zeros(items)
        scores = {"tuned": ours, "champion": theirs, "majority": majority}
        valid = dict.fromkeys(scores, np.ones(items))
        by_metric = {"exact_match": scores, "valid_json": valid}
        tokens = dict.fromkeys(("tuned", "champion"), np.full(items, 8.0))
        test = Suite(TEST, TEST, items, "exact_match", by_metric, slices, tokens)
        yield Evidence("candidate", "champion", REPORT, {TEST: test})


def _values(dice: np.random.Generator, items: int, count: int) -> dict[str, np.ndarray]:
    drawn = dice.integers(count, size=items)
    return {str(value): np.flatnonzero(drawn == value) for value in range(count)}


def _row(items: int, what: str, count: Count) -> str:
    interval = binomtest(count.promoted, count.gates).proportion_ci()
    shares = [number / count.gates for number in (count.promoted, count.larger, count.slices)]
    return (
        f"| {items:,} | {what} | {shares[0]:.1%} | {interval.low:.1%} to {interval.high:.1%}"
        f" | {shares[1]:.1%} | {shares[2]:.1%} |"
    )
