"""Answers a split with a model, greedily, and keeps the answers.

The same model, rows and settings always give the same answers, so they are an artifact: a
champion that was the candidate a run ago costs nothing to compare with. ``decoding`` answers in
batches on any device, ``vllm_engine`` on a GPU where it is installed. The batch size is part of
the recipe all the same: answers in bf16 may depend on it, and the timings always do.
"""

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe, digest_file
from mlops_assets.code_digest import code_digest
from mlops_assets.evaluation.decoding import Decoded, decode
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.evaluation.vllm_engine import VLLM, choose_engine, vllm_engine
from mlops_assets.metrics import percentile
from mlops_assets.model_loading import LoadedModel, is_prefix, load_model
from mlops_assets.progress import Advance, progress
from mlops_assets.refs import Row, write_jsonl
from mlops_assets.template_messages import template_messages, with_system
from mlops_assets.threads import fitting_threads

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "peft")

Engine = Callable[[Sequence[list[int]], Advance], Decoded]


@dataclass(frozen=True)
class Subject:
    """A model to be measured, under the name that the report gives it."""

    name: str
    base: Artifact
    adapter: Artifact | None
    max_new_tokens: int
    system: str = ""
    """The release's system prompt: what is asked before every row's own messages."""


@dataclass(frozen=True)
class Prediction:
    """One answer. ``tokens`` counts what was generated, the end token included."""

    id: str
    text: str
    prompt_tokens: int
    tokens: int
    finished: bool
    """Whether the model ended the answer itself, before ``max_new_tokens``."""


def predict(
    store: ArtifactStore, subject: Subject, split: Path, rows: Sequence[Row], spec: EvaluationSpec
) -> Artifact:
    """The answers of ``subject`` to ``rows``, which are those of the file ``split``.

    The artifact holds ``predictions.jsonl`` in the rows' order; its summary holds timings,
    which belong to the machine that measured and are no part of the content. Raises
    LineageError when the model is missing or was changed, also if it has answered before.
    """
    base = store.path(subject.base)
    adapter = store.path(subject.adapter) if subject.adapter else None
    engine = choose_engine(spec.engine, prefix=is_prefix(adapter))
    recipe = Recipe(
        "predictions",
        {
            "base": subject.base.digest,
            "adapter": subject.adapter.digest if subject.adapter else "",
            "split": digest_file(split),
            "prompt": hashlib.sha256(subject.system.encode()).hexdigest(),
        },
        {"max_new_tokens": subject.max_new_tokens, "do_sample": False, "engine": engine}
        | spec.model_dump(mode="json", include={"batch_size", "latency_requests", "seed"}),
        code_digest(__name__),
        (*LIBRARIES, VLLM) if engine == VLLM else LIBRARIES,
    )

    def produce(directory: Path) -> dict[str, Any]:
        loaded = load_model(base, adapter)
        to = directory / "predictions.jsonl"
        with (
            fitting_threads(loaded.parameters) as workers,
            _engine(engine, loaded, subject, spec.batch_size, workers) as answer,
        ):
            summary = _answer_and_time(answer, loaded, subject, rows, spec, to)
        return {"engine": engine, "batch_size": spec.batch_size} | summary

    return store.build(recipe, produce)


def time_requests(
    store: ArtifactStore, subject: Subject, rows: Sequence[Row], spec: EvaluationSpec
) -> dict[str, Any]:
    """What single requests take here and now: ``requests``, ``p50_ms`` and ``p95_ms``.

    Raises LineageError when the model is missing or was changed.
    """
    adapter = store.path(subject.adapter) if subject.adapter else None
    loaded = load_model(store.path(subject.base), adapter)
    name = choose_engine(spec.engine, prefix=is_prefix(adapter))
    prompts = _tokenize(loaded, [with_system(subject.system, row) for row in rows])
    fitting = [ids for ids in prompts if _fits(loaded, ids, subject.max_new_tokens)]
    with (
        fitting_threads(loaded.parameters) as workers,
        _engine(name, loaded, subject, spec.batch_size, workers) as answer,
    ):
        return _latency(answer, fitting, spec)


def read_predictions(store: ArtifactStore, artifact: Artifact) -> list[Prediction]:
    """The answers in the rows' order."""
    with (store.path(artifact) / "predictions.jsonl").open(encoding="utf-8") as lines:
        return [Prediction(**json.loads(line)) for line in lines]


def _answer_and_time(
    answer: Engine,
    loaded: LoadedModel,
    subject: Subject,
    rows: Sequence[Row],
    spec: EvaluationSpec,
    to: Path,
) -> dict[str, Any]:
    prompts = _tokenize(loaded, [with_system(subject.system, row) for row in rows])
    budget = subject.max_new_tokens
    fits = [i for i, ids in enumerate(prompts) if _fits(loaded, ids, budget)]
    started = time.perf_counter()
    with progress(logger, f"answering with {subject.name}", len(fits)) as advance:
        decoded = answer([prompts[i] for i in fits], advance)
    answers = _texts(loaded, fits, decoded)
    seconds = time.perf_counter() - started
    predictions = []
    for i, (row, ids) in enumerate(zip(rows, prompts, strict=True)):
        text, tokens, finished = answers.get(i, ("", 0, False))
        predictions.append(Prediction(row.id, text, len(ids), tokens, finished))
    write_jsonl(to, predictions)
    if refused := len(rows) - len(fits):
        logger.warning(
            "%s: %d prompts exceed its context and count as wrong", subject.name, refused
        )
    return (
        {"device": loaded.device, "seconds": seconds}
        | {"shared_prefix_tokens": decoded.shared, "answered_alone": decoded.alone}
        | _token_counts(predictions, refused, seconds)
        | {
            f"latency_{name}": value
            for name, value in _latency(answer, [prompts[i] for i in fits], spec).items()
        }
    )


def _token_counts(
    predictions: Sequence[Prediction], refused: int, seconds: float
) -> dict[str, float]:
    generated = sum(item.tokens for item in predictions)
    return {
        "rows": len(predictions),
        "refused": refused,
        "unfinished": sum(not item.finished for item in predictions) - refused,
        "prompt_tokens": sum(item.prompt_tokens for item in predictions),
        "output_tokens": generated,
        "output_tokens_per_second": generated / seconds if seconds else 0.0,
    }


def _latency(answer: Engine, prompts: Sequence[list[int]], spec: EvaluationSpec) -> dict[str, Any]:
    """Seconds that single requests take, on a seeded sample and after one to warm up."""
    count = min(spec.latency_requests, len(prompts))
    sample = random.Random(spec.seed).sample(prompts, count)
    for ids in sample[:1]:
        answer([ids], _silently)
    timings = []
    for ids in sample:
        started = time.perf_counter()
        answer([ids], _silently)
        timings.append(1000 * (time.perf_counter() - started))
    return {
        "requests": count,
        "p50_ms": percentile(timings, 0.5),
        "p95_ms": percentile(timings, 0.95),
    }


def _texts(
    loaded: LoadedModel, chosen: Sequence[int], decoded: Decoded
) -> dict[int, tuple[str, int, bool]]:
    """Text, tokens, and whether it ended itself, of each chosen row's answer."""
    texts = loaded.tokenizer.batch_decode(
        decoded.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return {
        i: (text, len(ids), bool(ids) and ids[-1] in loaded.end_tokens)
        for i, ids, text in zip(chosen, decoded.tokens, texts, strict=True)
    }


@contextmanager
def _engine(
    name: str, loaded: LoadedModel, subject: Subject, batch_size: int, workers: int
) -> Iterator[Engine]:
    budget = subject.max_new_tokens
    if name == VLLM:
        with vllm_engine(loaded, budget) as answer:
            yield lambda prompts, _: Decoded(answer(prompts), 0, 0)
    else:
        yield lambda prompts, advance: decode(loaded, prompts, budget, batch_size, advance, workers)


def _silently(steps: int, note: str) -> None:
    """In the place of progress that is over at once."""


def _tokenize(loaded: LoadedModel, rows: Sequence[Row]) -> list[list[int]]:
    texts = [
        loaded.tokenizer.apply_chat_template(
            template_messages(row.prompt),
            tools=[dict(tool) for tool in row.tools] or None,
            tokenize=False,
            add_generation_prompt=True,
        )
        for row in rows
    ]
    encoded: list[list[int]] = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return encoded


def _fits(loaded: LoadedModel, ids: Sequence[int], budget: int) -> bool:
    """A server refuses what exceeds the context, so it has no answer here either."""
    return loaded.context is None or len(ids) + budget <= loaded.context
