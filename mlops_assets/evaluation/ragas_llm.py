"""ragas' metrics that ask a language model, asked through our own judge.

ragas brings the metrics and their prompts; each request goes through ``Endpoint`` and so has its
cache, budget, strict reading and reasons. ragas' own clients, which retry behind one's back and
report their use, are not involved. A metric stands only over all rows that it applies to.
"""

import asyncio
import logging
import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mlops_assets.evaluation.judge_endpoint import Endpoint
from mlops_assets.evaluation.judge_http import NoVerdictError
from mlops_assets.evaluation.judge_questions import Question, Rubric
from mlops_assets.evaluation.judge_sample import Judged, Key
from mlops_assets.evaluation.judge_section import whole_mean
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.profiles import PROJECT
from mlops_assets.progress import progress
from mlops_assets.sentence_encoder import SentenceEncoder

logger = logging.getLogger(__name__)

ONLY_ASYNCHRONOUS = "ragas asked for an answer outside the event loop, where no judge waits"
NO_EMBEDDINGS = "no embeddings: set judge_embedding_model or judge_encoder"
NO_CONTEXTS = "no row of the sample has contexts"
RUBRIC_SCORE = "rubric_score"
BINARY = {"verdict", "attributed", "noncommittal"}
ROUNDING = 1e-6  # a cosine may exceed 1 by so much

Embed = Callable[[str], Awaitable[list[float]]]


@dataclass
class RagasScores:
    """The section of the report by metric, and the scores of single answers."""

    section: dict[str, dict[str, Any]] = field(default_factory=dict)
    items: dict[Key, dict[str, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One metric of ragas: how it is made, what it takes, and its range."""

    name: str
    make: Callable[[Any], Any]
    """From an LLM to the metric."""
    takes: tuple[str, ...]
    low: float = 0.0
    high: float = 1.0
    absent: str = ""
    """Why it cannot be computed at all; empty where it can."""

    @property
    def needs_contexts(self) -> bool:
        return "retrieved_contexts" in self.takes


async def score_with_llm(
    endpoint: Endpoint, rubric: Rubric, items: Sequence[Judged], spec: EvaluationSpec
) -> RagasScores:
    """Every metric on the rows that have what it takes."""
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"  # nothing is sent to its makers
    found, asking = RagasScores(), _Asking(endpoint, rubric, spec.seed)
    for metric in _metrics(rubric, _embedder(endpoint, spec)):
        rows = [item for item in items if item.contexts or not metric.needs_contexts]
        reason = metric.absent or ("" if rows else NO_CONTEXTS)
        if reason:
            found.section[metric.name] = {"rows": 0, "scores": {}, "reason": reason}
            continue
        scores = await _score(asking, metric, rows)
        for key, (value, _) in scores.items():
            found.items.setdefault(key, {})[metric.name] = value
        found.section[metric.name] = {"rows": len(rows)} | _means(scores)
    return found


def _metrics(rubric: Rubric, embed: Embed | None) -> list[Metric]:
    from ragas.metrics.collections import (
        AnswerRelevancy,
        ContextPrecision,
        ContextRecall,
        DomainSpecificRubrics,
        Faithfulness,
    )

    levels = {f"score{level}_description": text for level, text in rubric.levels.items()}

    def relevancy(llm: Any) -> Any:
        # At temperature 0 a second question would be the first again.
        return AnswerRelevancy(llm=llm, embeddings=_embedding(embed), strictness=1)

    def rubrics(llm: Any) -> Any:
        return DomainSpecificRubrics(llm=llm, rubrics=levels, with_reference=True)

    asked, seen = ("user_input", "response"), "retrieved_contexts"
    return [
        Metric("faithfulness", lambda llm: Faithfulness(llm=llm), (*asked, seen)),
        Metric("answer_relevancy", relevancy, asked, -1.0, absent="" if embed else NO_EMBEDDINGS),
        Metric(
            "context_precision",
            lambda llm: ContextPrecision(llm=llm),
            ("user_input", "reference", seen),
        ),
        Metric(
            "context_recall", lambda llm: ContextRecall(llm=llm), ("user_input", "reference", seen)
        ),
        Metric(RUBRIC_SCORE, rubrics, (*asked, "reference"), 1.0, float(rubric.best)),
    ]


async def _score(
    asking: "_Asking", metric: Metric, rows: Sequence[Judged]
) -> dict[Key, tuple[float | None, str]]:
    """The value, or None and the reason, of each answer."""
    keys = [key for row in rows for key in row.keys]
    with progress(logger, f"ragas {metric.name}", len(keys)) as advance:

        async def one(row: Judged, output: str) -> tuple[float | None, str]:
            try:
                return await asking.value(metric, row, output), ""
            except NoVerdictError as error:
                return None, str(error)
            finally:
                advance(1, "")

        found = await asyncio.gather(
            *(one(row, output) for row in rows for output in row.outputs.values())
        )
    return dict(zip(keys, found, strict=True))


@dataclass(frozen=True)
class _Asking:
    """Whom ragas asks, and by what."""

    endpoint: Endpoint
    rubric: Rubric
    seed: int

    async def value(self, metric: Metric, row: Judged, output: str) -> float:
        """The metric of one answer. Raises NoVerdictError."""
        inputs = {
            "user_input": row.request,
            "response": output,
            "reference": row.reference,
            "retrieved_contexts": row.contexts,
        }
        given = {name: inputs[name] for name in metric.takes}
        if empty := [name for name, value in given.items() if not value]:
            raise NoVerdictError(f"ragas takes no empty {empty[0]}")
        value = (await metric.make(self.language_model()).ascore(**given)).value
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise NoVerdictError("ragas came to no number")
        if not metric.low - ROUNDING <= value <= metric.high + ROUNDING:
            raise NoVerdictError("ragas came to a number outside the metric's range")
        value = max(metric.low, min(metric.high, float(value)))
        return self.rubric.share(value) if metric.name == RUBRIC_SCORE else value

    def language_model(self) -> Any:
        """What ragas takes for an LLM, for one answer."""
        from ragas.llms.base import InstructorBaseRagasLLM

        endpoint, seed, levels = self.endpoint, self.seed, (1, self.rubric.best)

        class Judge(InstructorBaseRagasLLM):  # type: ignore[misc]
            statements: int | None = None

            def generate(self, *_: Any, **__: Any) -> BaseModel:
                raise NoVerdictError(ONLY_ASYNCHRONOUS)

            async def agenerate(self, prompt: str, response_model: type[BaseModel]) -> BaseModel:
                scored = levels if "score" in response_model.model_fields else None
                found = await endpoint.ask(
                    Question("", prompt, response_model, seed, scored, self.fault)
                )
                self.statements = len(getattr(found, "statements", ())) or None
                return found

            def fault(self, answer: BaseModel) -> str:
                return _fault(answer.model_dump(), self.statements)

        return Judge()


def _means(scores: Mapping[Key, tuple[float | None, str]]) -> dict[str, Any]:
    """The mean of each system; None, with the reasons, where one of its answers has no value."""
    by_system: dict[str, list[float | None]] = {}
    for key, (value, _) in scores.items():
        by_system.setdefault(key[2], []).append(value)
    means = {system: whole_mean(values) for system, values in by_system.items()}
    reasons = sorted({reason for _, reason in scores.values() if reason})
    return {"scores": means, "reason": "; ".join(reasons)}


def _fault(said: Mapping[str, Any], statements: int | None) -> str:
    """What ragas would let pass; ``statements`` are those that were to be judged, if any were."""
    if not _binary(said):
        return "a verdict is neither 0 nor 1"
    if not str(said.get("question", "-")).strip():
        return "the question is empty"
    if statements is not None and len(said.get("statements", ())) != statements:
        return "some statements have no verdict"
    return ""


def _binary(said: Any) -> bool:
    """Whether every verdict in the answer is 0 or 1: ragas would take 2 for a yes."""
    if isinstance(said, list):
        return all(_binary(item) for item in said)
    if not isinstance(said, dict):
        return True
    return all(
        value in (0, 1) if name in BINARY else _binary(value) for name, value in said.items()
    )


def _embedder(endpoint: Endpoint, spec: EvaluationSpec) -> Embed | None:
    if spec.judge_embedding_model:
        return endpoint.embed
    if not spec.judge_encoder:
        return None
    encoder = SentenceEncoder(PROJECT / Path(spec.judge_encoder).expanduser(), "judge_encoder")

    async def embed(text: str) -> list[float]:
        return encoder.encode([text])[0]

    return embed


def _embedding(embed: Embed | None) -> Any:
    """What ragas takes for an embedding."""
    from ragas.embeddings.base import BaseRagasEmbedding

    class Embedding(BaseRagasEmbedding):  # type: ignore[misc]
        def embed_text(self, *_: Any, **__: Any) -> list[float]:
            raise NoVerdictError(ONLY_ASYNCHRONOUS)

        async def aembed_text(self, text: str, **_: Any) -> list[float]:
            if embed is None:
                raise NoVerdictError(NO_EMBEDDINGS)
            return await embed(text)

    return Embedding()
