"""How often the semantic cache gives a question the answer to another one, by its threshold.

Banking77's questions are asked one after the other, the train split before the test split. A
question near enough to a cached one is a hit, any other is cached itself. A hit is false when the
cached question has another intent. The threshold is chosen on one half of the questions and
measured on the other, there with the cache's own index.
"""

import csv
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from mlops_assets.sentence_encoder import SentenceEncoder, packaged_encoder
from mlops_assets.serving.caching.cache_spec import CacheSpec
from mlops_assets.serving.caching.semantic_index import NUMBER, SemanticIndex

THRESHOLDS = [round(0.80 + step / 100, 2) for step in range(20)]
TARGET = 0.03
"""Most that the false-hit rate may be: the upper end of its 95% interval (Wilson)."""
DEFAULT = CacheSpec().cache_semantic_threshold
ENTRIES, LOOKUPS = 10_000, 300
SCOPE = "a" * 64


@dataclass(frozen=True)
class Question:
    """One question, and what the cache sees of it."""

    text: str
    intent: str
    vector: np.ndarray
    known: bool
    """Whether the encoder has a token for everything in it."""


@dataclass
class Count:
    """What became of the questions of a half."""

    asked: int = 0
    hits: int = 0
    confused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Intents of the cached question and of the one that got its answer."""

    def add(self, asked: Question, cached: Question | None) -> None:
        """Count one question, and the one whose answer it got, if it got one."""
        self.asked += 1
        if cached is not None:
            self.hits += 1
            if cached.intent != asked.intent:
                self.confused[cached.intent, asked.intent] += 1

    @property
    def false(self) -> int:
        return self.confused.total()

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's 95% interval of the false-hit rate."""
        if not self.hits:
            return 0.0, 1.0
        interval = binomtest(self.false, self.hits).proportion_ci(method="wilson")
        return interval.low, interval.high


class Vectors:
    """An encoder of texts whose vectors were made before."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = {question.text: question for question in questions}

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._questions[text].vector.tolist() for text in texts]

    def knows(self, text: str) -> bool:
        return self._questions[text].known


def cache() -> None:
    """Print the curve, the threshold that it leads to, and the time of a lookup."""
    directory = os.environ.get("BANKING77_DIR")
    if not directory:
        print("\nThe cache is measured on Banking77: skipped, BANKING77_DIR is not set.")
        return
    encoder = SentenceEncoder(packaged_encoder(), "cache_encoder")
    questions = _read(Path(directory), encoder)
    first, second = questions[0::2], questions[1::2]
    chosen = _curve(first)
    if chosen is None:
        print(f"\nNo threshold keeps false hits below {TARGET:.0%}.")
        return
    print(f"\nSmallest threshold with an upper bound of at most {TARGET:.0%}: {chosen};"
          f" the default is {DEFAULT}")  # fmt: skip
    measured = with_the_index(second, chosen)
    print(f"\nThe other {measured.asked:,} questions at {chosen}, with the cache's own index:\n")
    print(HEADING)
    print(_row(chosen, measured))
    print("\n| most confused: cached question's intent | asked question's intent | times |")
    print("|---|---|---|")
    for (cached, asked), times in measured.confused.most_common(5):
        print(f"| {cached} | {asked} | {times} |")
    _time(encoder, questions)


HEADING = (
    "| threshold | hits | of the questions | false hits | of the hits | 95% interval |\n"
    "|---|---|---|---|---|---|"
)


def _read(directory: Path, encoder: SentenceEncoder) -> list[Question]:
    rows: list[tuple[str, str]] = []
    for split in ("train", "test"):
        with (directory / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
            rows += [(row["text"], row["category"]) for row in csv.DictReader(stream)]
    shortest_first = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    vectors = np.empty((len(rows), len(encoder.encode(["?"])[0])), np.float32)
    vectors[shortest_first] = encoder.encode([rows[index][0] for index in shortest_first])
    return [
        Question(text, intent, vector, encoder.knows(text))
        for (text, intent), vector in zip(rows, vectors, strict=True)
    ]


def _curve(questions: Sequence[Question]) -> float | None:
    """Print a row for each threshold; returns the smallest that meets the target."""
    print(f"\nFalse hits by threshold, {len(questions):,} questions of Banking77\n")
    print(HEADING)
    vectors = np.stack([question.vector for question in questions])
    kinds = {numbers: kind for kind, numbers in enumerate({_numbers(one) for one in questions})}
    numbers = np.array([kinds[_numbers(question)] for question in questions])
    similar = np.where(numbers[:, None] == numbers, vectors @ vectors.T, -1.0)
    chosen = None
    for threshold in THRESHOLDS:
        count = ask(questions, similar, threshold)
        print(_row(threshold, count), flush=True)
        if chosen is None and count.bounds[1] <= TARGET:
            chosen = threshold
    return chosen


def ask(questions: Sequence[Question], similar: np.ndarray, threshold: float) -> Count:
    """Ask in order; ``similar[i, j]`` is -1 for questions that may not share an answer."""
    count, cached = Count(), np.zeros(len(questions), bool)
    for index, question in enumerate(questions):
        near = np.where(cached[:index], similar[index, :index], -1.0)
        nearest = int(near.argmax()) if index else 0
        hit = question.known and index > 0 and near[nearest] >= threshold
        count.add(question, questions[nearest] if hit else None)
        cached[index] = question.known and not hit
    return count


def with_the_index(questions: Sequence[Question], threshold: float) -> Count:
    index = SemanticIndex(Vectors(questions), threshold, len(questions), 1, 3600.0)
    count = Count()
    for number, question in enumerate(questions):
        found = index.find(SCOPE, question.text)
        count.add(question, questions[found[0]] if found else None)
        if found is None:
            index.put(SCOPE, question.text, number)
    return count


def _time(encoder: SentenceEncoder, questions: Sequence[Question]) -> None:
    kept, asked = questions[:ENTRIES], questions[ENTRIES : ENTRIES + LOOKUPS]
    index = SemanticIndex(Vectors(questions), DEFAULT, ENTRIES, 1, 3600.0)
    for number, question in enumerate(kept):
        index.put(SCOPE, question.text, number)
    print(f"\n| one lookup, {len(kept):,} questions kept | p50 ms | p99 ms |\n|---|---|---|")
    for name, work in (
        ("encoding the question", lambda text: encoder.encode([text])),
        ("searching the index", lambda text: index.find(SCOPE, text)),
    ):
        work(asked[0].text)
        times = [_seconds(work, question.text) * 1e3 for question in asked]
        ends = statistics.quantiles(times, n=100)
        print(f"| {name} | {statistics.median(times):.1f} | {ends[98]:.1f} |")


def _seconds(work: object, text: str) -> float:
    started = time.perf_counter()
    work(text)  # type: ignore[operator]
    return time.perf_counter() - started


def _numbers(question: Question) -> tuple[str, ...]:
    return tuple(NUMBER.findall(question.text))


def _row(threshold: float, count: Count) -> str:
    low, high = count.bounds
    return (
        f"| {threshold:.2f} | {count.hits:,} | {count.hits / count.asked:.1%} | {count.false}"
        f" | {count.false / max(count.hits, 1):.1%} | {low:.1%} to {high:.1%} |"
    )
