"""What a drift verdict on a million records costs, and how often it is wrong.

python -m mlops_assets_tests.bench drift
"""

import os
import tempfile
from pathlib import Path

from scipy.stats import binomtest

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.drift.findings import DRIFT
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets_tests.bench_drift_speed import speed
from mlops_assets_tests.bench_drift_users import one_column, shifted_texts, whole_verdicts
from mlops_assets_tests.drift_windows import Drawn, World, banking77, tickets

SPEC = DriftSpec()
WINDOWS, SIZES = 1_000, (100, 200, 1_000, 10_000)
POWER_WINDOWS, POWER_SIZES, SHARES = 100, (100, 200, 1_000), (0.1, 0.2, 0.3, 0.5)


def drift() -> None:
    """Print the times and verdicts beside Evidently's, the false alarms and the power."""
    one_column()
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder))
        store = ArtifactStore(Path(folder) / "embeddings")
        world = tickets(20_000, 40_000, 20_000).with_meanings(store)
        alarms("the shipped generator", world, 5_000)
        power(world, 5_000)
        whole_verdicts(world, 5_000)
        shifted_texts(world)
        if directory := os.environ.get("BANKING77_DIR"):
            alarms("Banking77", banking77(Path(directory)).with_meanings(store), 3_000)


def alarms(name: str, world: World, rows: int) -> None:
    """The share of windows with a drift verdict where nothing has changed, by their size."""
    found = dict.fromkeys(SIZES, 0)
    for seed in range(WINDOWS):
        drawn = world.draw(rows, seed)
        for size in SIZES:
            found[size] += drawn.verdict(size, SPEC).verdict == DRIFT
    print(f"\nFalse alarms, {name}: {WINDOWS:,} references of {rows:,} rows, one window each\n")
    print("| records | alarms | 95% interval |\n|---|---|---|")
    for size, count in found.items():
        ends = binomtest(count, WINDOWS).proportion_ci(method="wilson")
        print(f"| {size:,} | {count / WINDOWS:.1%} | {ends.low:.1%} to {ends.high:.1%} |")


def power(world: World, rows: int) -> None:
    """The share of windows with a drift verdict, by how many records are shifted."""
    print("\nDrift found, the shipped generator, by the share of records of the shifted mix\n")
    print(f"| records | {' | '.join(f'{share:.0%}' for share in SHARES)} |")
    print("|---" * (len(SHARES) + 1) + "|")
    drawn = [world.draw(rows, seed) for seed in range(POWER_WINDOWS)]
    for size in POWER_SIZES:
        shares = [_found(drawn, size, share) for share in SHARES]
        print(f"| {size:,} | {' | '.join(f'{share:.0%}' for share in shares)} |", flush=True)


def _found(drawn: list[Drawn], size: int, share: float) -> float:
    hits = sum(each.verdict(size, SPEC, share).verdict == DRIFT for each in drawn)
    return hits / len(drawn)
