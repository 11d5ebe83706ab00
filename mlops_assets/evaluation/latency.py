"""Times the candidate and the champion in one go, for the gate's ceiling on their ratio.

The timings that a model's answers keep may be of another day and another machine: good enough to
show, not to compare. So where there is a champion to compare with, both are timed again, one after
the other in one process, and that pair of timings is an artifact.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe, digest_file, digest_json
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation.generation import LIBRARIES, Subject, time_requests
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.refs import Row

TIMED = {"engine", "batch_size", "latency_requests", "seed"}


def time_side_by_side(
    store: ArtifactStore,
    subjects: Sequence[Subject],
    split: Path,
    rows: Sequence[Row],
    spec: EvaluationSpec,
) -> Artifact:
    """``requests``, ``p50_ms`` and ``p95_ms`` of each subject, by name, in the summary.

    ``rows`` are those of the file ``split``; a seeded sample of them is asked. Raises LineageError
    when a model is missing or was changed.
    """
    recipe = Recipe(
        "latency",
        {one.name: _digest(one) for one in subjects} | {"split": digest_file(split)},
        spec.model_dump(mode="json", include=TIMED),
        code_digest(__name__),
        LIBRARIES,
    )

    def produce(directory: Path) -> dict[str, Any]:
        found = {one.name: time_requests(store, one, rows, spec) for one in subjects}
        (directory / "latency.json").write_text(json.dumps(found), "utf-8")
        return found

    return store.build(recipe, produce)


def _digest(subject: Subject) -> str:
    adapter = subject.adapter.digest if subject.adapter else ""
    return digest_json([subject.base.digest, adapter, subject.max_new_tokens, subject.system])
