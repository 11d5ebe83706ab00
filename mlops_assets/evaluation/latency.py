"""Times the candidate and the champion in one go, for the gate's ceiling on their ratio.

The timings that a model's answers keep may be of another day and another machine: good enough to
show, not to compare. So where there is a champion to compare with, both are timed again in one
process, in two rounds: the second one the other way round, because a machine that grows busier
meanwhile slows whoever is last. The round in which the candidate does better counts, so what
fails was slower in both; that round is an artifact.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe, digest_file, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation.generation import LIBRARIES, Subject, time_requests
from mlops_assets.evaluation.judge_sample import OURS, RIVAL
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.refs import Row

TIMED = {"engine", "batch_size", "latency_requests", "seed"}


def time_side_by_side(
    store: ArtifactStore,
    pair: Sequence[Subject],
    split: Path,
    rows: Sequence[Row],
    spec: EvaluationSpec,
) -> Artifact:
    """``requests``, ``p50_ms`` and ``p95_ms`` of candidate and champion, by name, in the summary.

    ``pair`` is these two, in any order; ``rows`` are those of the file ``split``; a seeded sample
    of them is asked. Raises LineageError when a model is missing or was changed.
    """
    recipe = Recipe(
        "latency",
        {one.name: _digest(one) for one in pair} | {"split": digest_file(split)},
        spec.model_dump(mode="json", include=TIMED),
        code_digest(__name__),
        LIBRARIES,
    )

    def produce(directory: Path) -> dict[str, Any]:
        rounds = [
            {one.name: time_requests(store, one, rows, spec) for one in order}
            for order in (pair, pair[::-1])
        ]
        found = min(rounds, key=_ratio)
        (directory / "latency.json").write_text(json.dumps(found), "utf-8")
        return found

    return store.build(recipe, produce)


def _ratio(timed: Mapping[str, Mapping[str, Any]]) -> float:
    """The candidate's p95 as a multiple of the champion's; infinite where one has none."""
    ours, theirs = (timed[name]["p95_ms"] for name in (OURS, RIVAL))
    return float(ours / theirs) if ours is not None and theirs else math.inf


def _digest(subject: Subject) -> str:
    adapter = subject.adapter.digest if subject.adapter else ""
    return digest_json([subject.base.digest, adapter, subject.max_new_tokens, subject.system])
