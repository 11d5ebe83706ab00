"""How often the embedding of the requests alone alarms, and what it finds.

Every text is encoded once, as the product does it; windows are drawn from the vectors.
python -m mlops_assets_tests.bench embeddings
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp

from mlops_assets.artifacts import ArtifactStore
from mlops_assets.monitoring.drift.embedding import RIDGE, embedding_finding
from mlops_assets.monitoring.drift.features import Exchange
from mlops_assets.monitoring.drift.findings import Finding
from mlops_assets.monitoring.drift.spec import DriftSpec
from mlops_assets.monitoring.drift.text_embeddings import TextEmbeddings
from mlops_assets.sentence_encoder import packaged_encoder
from mlops_assets_tests.drift_windows import ENCODED, Meanings, banking77_rows, logged
from mlops_assets_tests.shares import share

SPEC = DriftSpec()
WINDOWS, SIZES, SHIFTED = 400, (100, 200, 1_000, 10_000), 1_500
POWER_WINDOWS, POWER_SIZES, CORRECTED = 50, (100, 200, 1_000), 0.001
"""A p value below this is about what a correction over a dozen columns asks for."""
SPLITS = 5
Sides = tuple[np.ndarray, np.ndarray]
Draw = Callable[[int, np.random.Generator], Sides]
"""Vectors of the reference, and those of a window of so many records."""


def embeddings() -> None:
    """Print the time of encoding, the false alarms, and the power beside splits in halves."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        encoder = TextEmbeddings(ArtifactStore(Path(folder)), packaged_encoder())
        encoder.of(["Loads the encoder."])
        print("\n| texts | | CPU, s | CPU for 400, s |\n|---|---|---|---|")
        tickets = Meanings(
            _encoded("unshifted", list(logged("unshifted", ENCODED)), encoder),
            _encoded("shifted", list(logged("shifted", SHIFTED)), encoder),
        )
        calm = {"tickets": tickets}
        changed = {
            "30% of the tickets shifted": partial(_dealt, tickets, 0.3),
            "all tickets shifted": partial(_dealt, tickets, 1.0),
        }
        if directory := os.environ.get("BANKING77_DIR"):
            vectors, intents = _banking77(Path(directory), encoder)
            calm["BANKING77"] = Meanings(vectors, vectors[:0])
            changed["BANKING77, half of the intents absent"] = partial(_half, vectors, intents)
    for name, pool in calm.items():
        false_alarms(name, partial(_dealt, pool, 0.0))
    power(changed)
    print(f"\n{time.process_time() - started:.0f} s of CPU")


def _encoded(name: str, rows: Sequence[Exchange], encoder: TextEmbeddings) -> np.ndarray:
    started = time.process_time()
    vectors = encoder.of([row.text for row in rows])
    took = time.process_time() - started
    print(f"| {name} | {len(rows):,} | {took:.1f} | {400 * took / len(rows):.1f} |", flush=True)
    return vectors


def _banking77(directory: Path, encoder: TextEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of some of the texts, and their intents; the files are sorted by intent."""
    rows = banking77_rows(directory)
    drawn = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:ENCODED]]
    intents = np.array([json.loads(row.answer)["intent"] for row in drawn])
    return _encoded("BANKING77", drawn, encoder), intents


def _dealt(pool: Meanings, shifted: float, records: int, dice: np.random.Generator) -> Sides:
    return pool.sides(records, shifted, SPEC.embedding_rows, dice)


def _half(
    vectors: np.ndarray, intents: np.ndarray, records: int, dice: np.random.Generator
) -> Sides:
    """Production asks for half of the intents only, other ones each time."""
    names, most = np.unique(intents), SPEC.embedding_rows
    asked = dice.choice(names, len(names) // 2, replace=False)
    order = dice.permutation(len(vectors))
    rest = order[most:]
    return vectors[order[:most]], vectors[rest[np.isin(intents[rest], asked)][: min(records, most)]]


def false_alarms(name: str, draw: Draw) -> None:
    """The share of windows in which nothing changed and this column alone alarms."""
    print(f"\nNothing changed, {name}: references of {SPEC.embedding_rows} texts\n")
    print(f"| window | windows | p < {SPEC.alpha} and effect >= {SPEC.min_effect} | p < 0.05 |")
    print("|---|---|---|---|")
    everything: list[Finding] = []
    for records in SIZES:
        found = [_find(draw, records, seed) for seed in range(WINDOWS)]
        print(f"| {records:,} | {_alarms(found)} |", flush=True)
        everything += found
    print(f"| all | {_alarms(everything)} |", flush=True)


def _find(draw: Draw, records: int, seed: int) -> Finding:
    sides = draw(records, np.random.default_rng([seed, records]))
    return embedding_finding("request_embedding", *sides, seed, SPEC.min_effect)


def _alarms(found: Sequence[Finding]) -> str:
    low, count = sum(each.p < 0.05 for each in found), len(found)
    return f"{count:,} | {share(_hits(found, SPEC.alpha), count)} | {share(low, count)}"


def _hits(found: Sequence[Finding], level: float) -> int:
    return sum(each.p < level and each.effect >= each.min_effect for each in found)


def power(changed: Mapping[str, Draw]) -> None:
    """How often a change is found, beside the simpler form of the test on the same windows."""
    print(
        f"\nFound: p < {CORRECTED} and effect >= {SPEC.min_effect}, {POWER_WINDOWS} windows each\n"
    )
    print(f"| what changed | window | found | median effect | {SPLITS} splits in halves |")
    print("|---|---|---|---|---|")
    for name, draw in changed.items():
        for records in POWER_SIZES:
            found = [_find(draw, records, seed) for seed in range(POWER_WINDOWS)]
            effect = np.median([each.effect for each in found])
            halves = [_split(draw, records, seed) for seed in range(POWER_WINDOWS)]
            ours = share(_hits(found, CORRECTED), POWER_WINDOWS)
            theirs = sum(p < CORRECTED and far >= SPEC.min_effect for far, p in halves)
            print(f"| {name} | {records:,} | {ours} | {effect:.2f}"
                  f" | {share(theirs, POWER_WINDOWS)} |", flush=True)  # fmt: skip


def _split(draw: Draw, records: int, seed: int) -> tuple[float, float]:
    dice = np.random.default_rng([seed, records])
    return split_in_halves(*draw(records, dice), dice)


def split_in_halves(
    reference: np.ndarray, current: np.ndarray, dice: np.random.Generator
) -> tuple[float, float]:
    """Effect and p where half of each side teaches the direction and the rest is looked at: the
    median distance of some splits, and twice the median p (Meinshausen and others 2009)."""
    found = [_one_split(reference, current, dice) for _ in range(SPLITS)]
    return float(np.median([far for far, _ in found])), min(
        1.0, 2 * np.median([p for _, p in found])
    )


def _one_split(
    reference: np.ndarray, current: np.ndarray, dice: np.random.Generator
) -> tuple[float, float]:
    learnt, looked_at = zip(
        *(np.array_split(dice.permutation(side), 2) for side in (reference, current)), strict=True
    )
    centred = np.concatenate([side - side.mean(0) for side in learnt])
    spread = centred.T @ centred / len(centred)
    spread[np.diag_indices_from(spread)] += RIDGE * np.trace(spread) / len(spread)
    direction = np.linalg.solve(spread, learnt[1].mean(0) - learnt[0].mean(0))
    found = ks_2samp(*(side @ direction for side in looked_at), method="asymp")
    return float(found.statistic), float(found.pvalue)
