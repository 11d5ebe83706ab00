"""Runs what an evaluation needs: the models' answers, the baselines', ragas' scores, the judge.

Each is an artifact of its own, so that a report which only has to be compared with another
champion is written from what lies in the store. What the judge said is kept by question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.artifacts import Artifact, ArtifactStore
from mlops_assets.evaluation import baselines, generation, ragas_metrics
from mlops_assets.evaluation.generation import Subject
from mlops_assets.evaluation.judge import ABSENT, Judgement, judge_answers
from mlops_assets.evaluation.judge_sample import OURS, RIVAL, draw_sample, judged_rows
from mlops_assets.evaluation.latency import time_side_by_side
from mlops_assets.evaluation.records import TEST, Answer
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.evaluation.suites import Suite
from mlops_assets.prompts import system_text
from mlops_assets.refs import AdapterRef, BaseModelRef, ReleaseBundle, Row, SplitsRef, read_rows

JUDGE_CACHE = "judge.db"


@dataclass(frozen=True)
class Candidate:
    """What is measured, on what, and against whom."""

    splits: SplitsRef
    base: BaseModelRef
    adapter: AdapterRef
    bundle: ReleaseBundle
    champion: ReleaseBundle | None
    suites: Sequence[Suite] = ()


@dataclass(frozen=True)
class Measured:
    """Everything that was run on the test split: answers and ragas scores by system."""

    predictions: Mapping[str, Artifact]
    ragas: Mapping[str, Artifact]
    baselines: Artifact | None
    """None for free text, which has no classes to learn."""
    side_by_side: Artifact | None = None
    """Timings of candidate and champion; None without a champion to compare with."""


def subjects(store: ArtifactStore, candidate: Candidate) -> list[Subject]:
    """The models to run, each with its release's prompt; the base with the candidate's.

    A champion that is the candidate is found in the store.
    """
    bundle, champion = candidate.bundle, candidate.champion
    budget = int(bundle.generation["max_new_tokens"])
    system = system_text(store, bundle.prompt)
    found = [
        Subject("base", bundle.base, None, budget, system),
        Subject("tuned", bundle.base, bundle.adapter, budget, system),
    ]
    if champion:
        budget = int(champion.generation["max_new_tokens"])
        system = system_text(store, champion.prompt)
        found.append(Subject("champion", champion.base, champion.adapter, budget, system))
    return found


def measure(
    store: ArtifactStore,
    candidate: Candidate,
    split: Path,
    rows: Sequence[Row],
    spec: EvaluationSpec,
) -> Measured:
    """Answer ``rows``, which are those of the file ``split``, with every system."""
    run = subjects(store, candidate)
    answers = {one.name: generation.predict(store, one, split, rows, spec) for one in run}
    references = [row.answer for row in rows]
    ragas = {
        name: ragas_metrics.score_with_ragas(store, predictions, references, spec)
        for name, predictions in answers.items()
    }
    classes = bool(candidate.splits.labels)
    fitted = baselines.answer_with_baselines(store, candidate.splits) if classes else None
    pair = [one for one in run if one.name in (OURS, RIVAL)]
    timed = None
    if candidate.champion and candidate.champion.digest != candidate.bundle.digest:
        timed = time_side_by_side(store, pair, split, rows, spec)
    return Measured(answers, ragas, fitted, timed)


def judge(
    store: ArtifactStore, candidate: Candidate, split: Path, spec: EvaluationSpec
) -> Judgement:
    """What the judge, if there is one, says of a sample of the test split.

    Its answers so far lie beside the store: a failure is no part of them and is asked again.
    """
    if not spec.judge_url:
        return ABSENT
    rows = list(read_rows(split))
    champion = candidate.champion
    itself = champion is not None and champion.digest == candidate.bundle.digest
    outputs = {
        subject.name: [
            one.text
            for one in generation.read_predictions(
                store, generation.predict(store, subject, split, rows, spec)
            )
        ]
        for subject in subjects(store, candidate)
        if subject.name == OURS or (subject.name == RIVAL and not itself)
    }
    sample = draw_sample(judged_rows(TEST, rows, outputs), spec)
    fields = tuple(candidate.splits.labels)
    return judge_answers(sample, fields, spec, store.root.with_name(JUDGE_CACHE))


def read_answers(store: ArtifactStore, measured: Measured) -> dict[str, list[Answer]]:
    """What each system answered, in the rows' order."""
    found = {
        name: [
            Answer(one.text, one.finished, one.tokens)
            for one in generation.read_predictions(store, artifact)
        ]
        for name, artifact in measured.predictions.items()
    }
    if measured.baselines is None:
        return found
    fitted = baselines.read_baselines(store, measured.baselines)
    return found | {
        "majority": [Answer(item.majority) for item in fitted],
        "tfidf": [Answer(item.tfidf) for item in fitted],
    }
