"""How close the text of the answers is to the references, by ragas metrics without an LLM.

They give credit for nearly right answers, which exact match does not. They are computed on
a seeded sample of rows; the report says how many.
"""

import asyncio
import json
import logging
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, LineageError, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation.generation import read_predictions
from mlops_assets.evaluation.spec import EvaluationSpec

logger = logging.getLogger(__name__)

LIBRARIES = ("ragas", "rapidfuzz", "rouge-score", "sacrebleu")


def score_with_ragas(
    store: ArtifactStore, predictions: Artifact, references: Sequence[str], spec: EvaluationSpec
) -> Artifact:
    """The mean of each metric; the artifact's summary holds ``rows`` and ``scores``.

    ``references`` are those of the predicted split, so the predictions' digest covers them.
    """
    settings = spec.model_dump(mode="json", include={"ragas_rows", "seed"})
    inputs = {"predictions": predictions.digest, "recipe": predictions.key}
    recipe = Recipe("ragas_scores", inputs, settings, code_digest(__name__), LIBRARIES)

    def produce(directory: Path) -> dict[str, Any]:
        outputs = [item.text for item in read_predictions(store, predictions)]
        pairs = list(zip(references, outputs, strict=True))
        sample = random.Random(spec.seed).sample(pairs, min(spec.ragas_rows, len(pairs)))
        logger.info("scoring %d answers with ragas", len(sample))
        summary = {"rows": len(sample), "scores": ragas_means(sample)}
        (directory / "scores.json").write_text(json.dumps(summary, allow_nan=False, indent=1))
        return summary

    return store.build(recipe, produce)


def ragas_means(pairs: Sequence[tuple[str, str]]) -> dict[str, float | None]:
    """The mean of each metric over (reference, response); None without any pair.

    Raises LineageError when a metric has no number for some pair: it is never left out.
    """
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"  # nothing is sent to its makers
    logging.getLogger("absl").setLevel(logging.WARNING)  # rouge-score writes a line a row
    from ragas.metrics.collections import (
        BleuScore,
        CHRFScore,
        ExactMatch,
        NonLLMStringSimilarity,
        RougeScore,
    )

    metrics = (ExactMatch(), NonLLMStringSimilarity(), RougeScore(), BleuScore(), CHRFScore())
    return {metric.name: _mean(metric, pairs) for metric in metrics}


def _mean(metric: Any, pairs: Sequence[tuple[str, str]]) -> float | None:
    if not pairs:
        return None
    inputs = [{"reference": reference, "response": response} for reference, response in pairs]
    results = asyncio.run(metric.abatch_score(inputs))
    values = [result.value for result in results]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise LineageError(
            f"The ragas metric {metric.name} gave no number for some answer.",
            "Read the run's log; the report is not written without it.",
        )
    # sacrebleu's BLEU of two equal texts is 1 + 4e-16.
    return min(1.0, math.fsum(values) / len(values))
