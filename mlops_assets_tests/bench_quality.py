"""How often answer quality alarms where nothing got worse, and how often it finds what did.

python -m mlops_assets_tests.bench quality
"""

import time

import numpy as np

from mlops_assets.monitoring.drift.findings import Finding, decide
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.quality.business_metrics import compare, metrics_of
from mlops_assets.monitoring.quality.quality_spec import QualitySpec
from mlops_assets.monitoring.quality.same_users import same_users
from mlops_assets.monitoring.quality.worsening import p_worse, permutation_p, user_blocks
from mlops_assets_tests.quality_windows import UNCHANGED, Crowd, Sides, Worse, people
from mlops_assets_tests.shares import share

SPEC, ALPHA, LOOSE, BEFORE = QualitySpec(), DriftSpec().alpha, 0.05, 4
"""The baseline holds so many times the requests of the window, as by default."""
TESTED, TESTED_SIZE, LOST, USERS = 400, 200, (0.05, 0.2), (10, 50)
LEVELS = (0.05, 0.01, 0.0005)
JUDGED = {300: 50, 1_000: 20}
"""Windows by their size."""
CROWDS = {
    "100, the same ones": Crowd(100, stay=1.0),
    "100, half of them new": Crowd(100, stay=0.5),
    "100, all new": Crowd(100, stay=0.0),
    "20, half of them new": Crowd(20, stay=0.5),
}
FOUND, FOUND_SIZE = 25, 1_000
WORSE = {
    "failures, 5 points more": ("failed", Worse(failing=0.05)),
    "answers 50% slower": ("latency/p50", Worse(slower=1.5)),
    "answers twice as slow": ("latency/p50", Worse(slower=2.0)),
    "thumbs up, 10 points fewer": ("rating", Worse(disliking=0.1)),
    "thumbs up, 25 points fewer": ("rating", Worse(disliking=0.25)),
    "corrections, 10 points more": ("corrected", Worse(correcting=0.1)),
}


def quality() -> None:
    """Print the false alarms of one test and of all metrics together, and the power."""
    started = time.process_time()
    single_tests()
    false_alarms()
    power()
    print(f"\n{time.process_time() - started:.0f} s of CPU")


def single_tests() -> None:
    """How often p is small where nothing changed, of users who ask unequally often."""
    print(f"\nNothing changed, one test: {TESTED} windows of {TESTED_SIZE} requests each\n")
    print(f"| lost | users | test | {' | '.join(f'p < {level}' for level in LEVELS)} |")
    print("|---" * (3 + len(LEVELS)) + "|")
    for lost in LOST:
        for users in USERS:
            new, same = (_windows(lost, users, stay) for stay in (0.0, 1.0))
            alone = [_permutation(sides, seed) for seed, sides in enumerate(new)]
            _row(lost, users, "all users new, the permutation alone", alone)
            once = [p_worse(*sides, seed) for seed, sides in enumerate(new)]
            _row(lost, users, "all users new, each counted once", once)
            each = [same_users(*sides).p_worse(seed) for seed, sides in enumerate(same)]
            _row(lost, users, "the same users, user by user", each)


def _windows(lost: float, users: int, stay: float) -> list[Sides]:
    draw = people(TESTED_SIZE, BEFORE * TESTED_SIZE, lost, users, stay)
    return [draw(np.random.default_rng(seed)) for seed in range(TESTED)]


def _permutation(sides: Sides, seed: int) -> float:
    ours, theirs = map(user_blocks, sides)
    return permutation_p(ours, theirs, seed)


def _row(lost: float, users: int, test: str, found: list[float]) -> None:
    shares = [share(sum(p < level for p in found), len(found)) for level in LEVELS]
    print(f"| {lost:.0%} | {users} | {test} | {' | '.join(shares)} |", flush=True)


def false_alarms() -> None:
    """How often any metric is reported worse where nothing changed.

    Without a tolerated ratio: with one, times and cost that did not change would hardly ever have
    a small p.
    """
    spec = QualitySpec(excess_ratio=0.0)
    print("\nNothing changed, all metrics together, `excess_ratio` 0\n")
    print(f"| users | requests | windows | single p < {LOOSE} | alarm, alpha {LOOSE} | {ALPHA} |")
    print("|---" * 6 + "|")
    everything = []
    for name, crowd in CROWDS.items():
        for size, windows in JUDGED.items():
            found = [draw_findings(crowd, size, seed, spec) for seed in range(windows)]
            print(f"| {name} | {size:,} | {_alarms(found)} |", flush=True)
            everything += found
    print(f"| all | | {_alarms(everything)} |", flush=True)


def _alarms(windows: list[list[Finding]]) -> str:
    ps = [finding.p for findings in windows for finding in findings if finding.counts]
    loose, strict = (
        sum(bool(decide(findings, alpha).drifted) for findings in windows)
        for alpha in (LOOSE, ALPHA)
    )
    count = len(windows)
    single = share(sum(p < LOOSE for p in ps), len(ps))
    return f"{count} | {single} | {share(loose, count)} | {share(strict, count)}"


def power() -> None:
    """How often what got worse is reported, with the default settings."""
    print(f"\nWorse: {FOUND} windows of {FOUND_SIZE:,} requests of 100 users, half of them new\n")
    print("| what is worse | found | by another metric alone |\n|---|---|---|")
    crowd = CROWDS["100, half of them new"]
    for name, (metric, worse) in WORSE.items():
        windows = (draw_findings(crowd, FOUND_SIZE, seed, SPEC, worse) for seed in range(FOUND))
        verdicts = [decide(findings, ALPHA) for findings in windows]
        hits = sum(metric in verdict.drifted for verdict in verdicts)
        others = sum(bool(verdict.drifted) for verdict in verdicts) - hits
        print(f"| {name} | {share(hits, FOUND)} | {share(others, FOUND)} |", flush=True)


def draw_findings(
    crowd: Crowd, size: int, seed: int, spec: QualitySpec, worse: Worse = UNCHANGED
) -> list[Finding]:
    """What is found in one window of so many requests, by every metric."""
    sides = crowd.window(size, BEFORE * size, np.random.default_rng(seed), worse)
    metrics = metrics_of([request for side in sides for request in side])
    return [compare(metric, *sides, spec) for metric in metrics]
