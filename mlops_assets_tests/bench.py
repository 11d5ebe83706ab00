"""The benchmarks: ``make bench``. Every speed is a ratio against a named peer of the same run.

python -m mlops_assets_tests.bench [banking77] [reuse] [loading] [privacy] [data]
    [training] [generation] [gate] [gateway] [cache] [rollout]
    [drift] [embeddings] [quality] [gpu]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlops_assets_tests.bench_cache import cache
from mlops_assets_tests.bench_data import data
from mlops_assets_tests.bench_drift import drift
from mlops_assets_tests.bench_embeddings import embeddings
from mlops_assets_tests.bench_gate import gate
from mlops_assets_tests.bench_gateway import gateway
from mlops_assets_tests.bench_generation import generation
from mlops_assets_tests.bench_gpu import gpu
from mlops_assets_tests.bench_privacy import privacy
from mlops_assets_tests.bench_quality import quality
from mlops_assets_tests.bench_rollout import rollout
from mlops_assets_tests.bench_training import training
from mlops_assets_tests.commands import execute_job, run_command

ROUNDS = 5


def banking77() -> None:
    """The lineage on Banking77, cold, beside the TF-IDF baseline on the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        run = execute_job("lineage", home=home, MLOPS_PROFILE="banking77")
        if run.code != 0:
            sys.exit(f"Banking77 did not run:\n{run.output}")
        report = run_command("mlops", "status", "--json", home=home).json["last_report"]
    print(f"\nBanking77, {report['items']} test rows, whole lineage cold: {run.seconds:.0f} s\n")
    print("| model | exact match | of TF-IDF |\n|---|---|---|")
    scores: dict[str, Any] = report["exact_match"]
    for name in ("majority", "base", "tuned", "tfidf"):
        print(f"| {name} | {scores[name]:.4f} | {scores[name] / scores['tfidf']:.2f} |")


def reuse() -> None:
    """The default lineage again with nothing changed, beside its first run."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        runs = [execute_job("lineage", home=home) for _ in range(4)]
    if any(run.code for run in runs):
        sys.exit(next(run.output for run in runs if run.code))
    again = statistics.median(run.seconds for run in runs[1:])
    print("\n| default lineage | seconds | of the first |\n|---|---|---|")
    print(f"| first run | {runs[0].seconds:.1f} | 1 |")
    print(f"| again, median of 3 | {again:.1f} | {again / runs[0].seconds:.2f} |")


def loading() -> None:
    """Importing the definitions in a new process, beside importing Dagster alone."""
    ours, peer = [], []
    for _ in range(ROUNDS + 1):
        peer.append(_import_seconds("dagster"))
        ours.append(_import_seconds("mlops_assets.definitions"))
    mine, theirs = statistics.median(ours[1:]), statistics.median(peer[1:])
    print("\n| import in a new process | seconds (median of 5) | of dagster |\n|---|---|---|")
    print(f"| dagster | {theirs:.2f} | 1 |")
    print(f"| mlops_assets.definitions | {mine:.2f} | {mine / theirs:.2f} |")
    print("\nAt most 2 s is wanted; a test refuses torch and its like among the imports.")


def _import_seconds(module: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - started


BENCHMARKS: dict[str, Callable[[], None]] = {
    "loading": loading,
    "reuse": reuse,
    "privacy": privacy,
    "data": data,
    "training": training,
    "generation": generation,
    "gate": gate,
    "gateway": gateway,
    "rollout": rollout,
    "cache": cache,
    "drift": drift,
    "embeddings": embeddings,
    "quality": quality,
    "gpu": gpu,
    "banking77": banking77,
}


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all of them."""
    if unknown := set(names) - set(BENCHMARKS):
        sys.exit(f"No benchmark {json.dumps(sorted(unknown))}; there are {', '.join(BENCHMARKS)}.")
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
