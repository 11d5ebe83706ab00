"""What a language model thinks of the answers, and whether its word may count.

First the judge scores answers that people have scored: without enough agreement it has no vote.
Then it scores the candidate's and the champion's answers to the same sample, and compares the two
in both orders.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from logging import getLogger
from pathlib import Path
from statistics import median_low
from typing import Any, TypeVar

from mlops_assets.artifacts import digest_json
from mlops_assets.evaluation import judge_section
from mlops_assets.evaluation.judge_agreement import Agreement, Labelled, agree, read_calibration
from mlops_assets.evaluation.judge_endpoint import Endpoint
from mlops_assets.evaluation.judge_http import NoVerdictError
from mlops_assets.evaluation.judge_questions import (
    WORTH,
    Rubric,
    check_task,
    pair_question,
    read_rubric,
    score_question,
)
from mlops_assets.evaluation.judge_sample import OURS, RIVAL, Judged, Key, fit_to_send
from mlops_assets.evaluation.judge_section import Opinion, Opinions, Preferences, Preferred
from mlops_assets.evaluation.ragas_llm import RagasScores, score_with_llm
from mlops_assets.evaluation.records import Record
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.profiles import PROJECT
from mlops_assets.progress import progress
from mlops_assets.refs import Message

logger = getLogger(__name__)

SCORE, PREFERENCE = "judge", "judge_preference"
"""The names of the judge's metrics in the records."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Judgement:
    """The judge's section of the report, and its scores of single answers."""

    section: Mapping[str, Any]
    scores: Mapping[Key, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Names what was said, whatever it cost: a failure that has passed gives another."""
        said = {name: value for name, value in self.section.items() if name != "spent"}
        return digest_json([said, [[*key, dict(found)] for key, found in self.scores.items()]])

    def add_to(self, records: Sequence[Record]) -> list[Record]:
        """The records, with the judge's metrics in those that were judged."""
        return [self._added(record) for record in records]

    def _added(self, record: Record) -> Record:
        found = self.scores.get((record.suite, record.item, record.system))
        return replace(record, scores={**record.scores, **found}) if found else record


ABSENT = Judgement(
    {
        "configured": False,
        "vote": False,
        "complete": False,
        "reason": "No judge is configured: judge_url is empty.",
    }
)


def judge_answers(
    items: Sequence[Judged],
    fields: Sequence[str],
    spec: EvaluationSpec,
    cache: Path,
    first_wait: float = 0.5,
) -> Judgement:
    """Judge ``items``; what was answered before is taken from the file ``cache``.

    ``fields`` are those of the task's answers (none: free text); ``first_wait``: see ``Endpoint``.
    Raises LineageError when the rubric or the calibration set cannot be used. A server that
    fails raises nothing: the section says so and gives no vote.
    """
    if not spec.judge_url:
        return ABSENT
    rubric = read_rubric(PROJECT / Path(spec.judge_rubric).expanduser())
    check_task(rubric, fields)
    labelled = read_calibration(PROJECT / Path(spec.judge_calibration).expanduser(), rubric)
    logger.info("asking %s to judge the answers to %d requests", spec.judge_model, len(items))
    session = _Session(Endpoint(spec, cache, first_wait), spec, rubric)
    judgement = asyncio.run(session.judge(labelled, fit_to_send(items, spec)))
    logger.info("the judge: %s", judgement.section["reason"])
    return judgement


class _Session:
    """One run of the judge."""

    def __init__(self, endpoint: Endpoint, spec: EvaluationSpec, rubric: Rubric) -> None:
        self.endpoint, self.spec, self.rubric = endpoint, spec, rubric

    async def judge(self, labelled: Sequence[Labelled], items: Sequence[Judged]) -> Judgement:
        opinions: Opinions = {}
        preferences: Preferences = {}
        ragas = RagasScores()
        async with self.endpoint.connected():
            agreement = await self._calibrate(labelled)
            if agreement:  # else it answers too little to go on spending
                opinions = await self._score(items)
                preferences = await self._compare(items)
            missing = None in [agreement, *opinions.values(), *preferences.values()]
            failures = dict(sorted(self.endpoint.failures.items()))
            if agreement and self.spec.judge_ragas:
                ragas = await score_with_llm(self.endpoint, self.rubric, items, self.spec)
        voted, reason = judge_section.vote(
            agreement, not missing, failures, self.spec.judge_minimum_kappa
        )
        section = {
            "configured": True,
            "vote": voted,
            "complete": not missing,
            "reason": reason,
            "failures": failures,
            "agreement": asdict(agreement) if agreement else None,
            "scores": judge_section.mean_scores(opinions, self.rubric),
            "preference": judge_section.summarise_preferences(preferences),
            "lowest": judge_section.lowest(opinions, self.rubric.best),
            "ragas": ragas.section,
            "spent": asdict(self.endpoint.spent),
        }
        facts = self._facts(labelled, items)
        return Judgement(section | facts, self._scores(opinions, preferences, ragas))

    async def _calibrate(self, labelled: Sequence[Labelled]) -> Agreement | None:
        """The agreement with people; None when one of their answers has no verdict."""
        found = await self._each(
            "judging answers that people scored",
            [self._opinion(one.messages, one.reference, one.answer) for one in labelled],
        )
        levels = [opinion.level for opinion in found if opinion]
        if len(levels) < len(labelled):
            return None
        return agree([one.human for one in labelled], levels, self.rubric.best)

    async def _score(self, items: Sequence[Judged]) -> Opinions:
        keys = [key for item in items for key in item.keys]
        asked = [
            self._opinion(item.messages, item.reference, output)
            for item in items
            for output in item.outputs.values()
        ]
        return dict(zip(keys, await self._each("judging answers", asked), strict=True))

    async def _compare(self, items: Sequence[Judged]) -> Preferences:
        pairs = [item for item in items if {OURS, RIVAL} <= item.outputs.keys()]
        found = await self._each("comparing answers", [self._preferred(item) for item in pairs])
        keys = [(item.suite, item.item, OURS) for item in pairs]
        return dict(zip(keys, found, strict=True))

    async def _each(
        self, what: str, asked: Sequence[Coroutine[Any, Any, Result]]
    ) -> list[Result | None]:
        """What each came to, in their order; None for those without a verdict."""
        with progress(logger, what, len(asked)) as advance:

            async def one(coroutine: Coroutine[Any, Any, Result]) -> Result | None:
                try:
                    return await coroutine
                except NoVerdictError:
                    return None  # counted, with its reason, by the endpoint
                finally:
                    advance(1, "")

            return await asyncio.gather(*(one(coroutine) for coroutine in asked))

    async def _opinion(self, messages: Sequence[Message], reference: str, answer: str) -> Opinion:
        """The median of the repeats, each of which must have a verdict."""
        said = [
            await self.endpoint.ask(score_question(self.rubric, messages, reference, answer, seed))
            for seed in self._seeds()
        ]
        level = median_low([verdict.score for verdict in said])
        return Opinion(level, next(one.reason for one in said if one.score == level))

    async def _preferred(self, item: Judged) -> Preferred:
        """Both orders must say the same; else the judge likes a place, not an answer: a tie."""
        ours, theirs = item.outputs[OURS], item.outputs[RIVAL]
        if ours == theirs:
            return Preferred(0.5, consistent=True)
        here = await self._worth(item, (ours, theirs))
        there = 1 - await self._worth(item, (theirs, ours))
        return Preferred(here, True) if here == there else Preferred(0.5, False)

    async def _worth(self, item: Judged, answers: tuple[str, str]) -> float:
        """1, 0.5 or 0: whether most of the repeats prefer the first of two answers."""
        asked = [
            pair_question(self.rubric, item.messages, item.reference, answers, seed)
            for seed in self._seeds()
        ]
        votes = [WORTH[(await self.endpoint.ask(question)).better] for question in asked]
        mean = sum(votes) / len(votes)
        return 0.5 if mean == 0.5 else float(mean > 0.5)

    def _seeds(self) -> range:
        return range(self.spec.seed, self.spec.seed + self.spec.judge_repeats)

    def _facts(self, labelled: Sequence[Labelled], items: Sequence[Judged]) -> dict[str, Any]:
        """Who judged, by what, and how much."""
        levels = {str(level): text for level, text in self.rubric.levels.items()}
        return {
            "url": self.spec.judge_url,
            "model": self.spec.judge_model,
            "rubric": {"name": self.rubric.name, "digest": self.rubric.digest, "levels": levels},
            "calibration": digest_json([one.model_dump(mode="json") for one in labelled]),
            "minimum_kappa": self.spec.judge_minimum_kappa,
            "repeats": self.spec.judge_repeats,
            "rows": len(items),
        }

    def _scores(
        self, opinions: Opinions, preferences: Preferences, ragas: RagasScores
    ) -> dict[Key, dict[str, float | None]]:
        """The judge's metrics of every answer that was judged."""
        found: dict[Key, dict[str, float | None]] = {
            key: {SCORE: self.rubric.share(opinion.level) if opinion else None}
            for key, opinion in opinions.items()
        }
        for key, preferred in preferences.items():
            found[key][PREFERENCE] = preferred.value if preferred else None
        for key, scores in ragas.items.items():
            found[key] |= scores
        return found
