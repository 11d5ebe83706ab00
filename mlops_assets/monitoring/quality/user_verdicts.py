"""What users said of each request: votes, corrections, and that they asked it again."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mlops_assets.feedback_record import FeedbackRecord, last_votes
from mlops_assets.metrics import is_exact, is_same_text, parse_object
from mlops_assets.monitoring.quality.windows import Asked


@dataclass(frozen=True)
class Judged:
    """A request, and what its user said of the answer."""

    asked: Asked
    votes: Mapping[str, float] = field(default_factory=dict)
    """Last score of each metric."""
    corrected: bool = False
    contradicted: bool = False
    """Whether a correction says something else than the answer."""
    again: bool = False
    """Whether the same user asked the same again at once."""


def votes_that_count(
    records: Iterable[FeedbackRecord], requests: Collection[str]
) -> list[FeedbackRecord]:
    """The last vote of each metric on each of these requests, by metric."""
    chosen = [record for record in records if record.request in requests]
    metrics = sorted({record.metric for record in chosen})
    return [vote for metric in metrics for vote in last_votes(chosen, metric)]


def judge(
    requests: Sequence[Asked],
    votes: Sequence[FeedbackRecord],
    answers: Mapping[str, str],
    again: Collection[str],
) -> list[Judged]:
    """Put beside each request what was said of it.

    ``votes`` are those that count, ``answers`` the texts of what was corrected, ``again`` the ids
    of requests that were made again.
    """
    scores: dict[str, dict[str, float]] = {}
    corrections: dict[str, list[str]] = {}
    for vote in votes:
        scores.setdefault(vote.request, {})[vote.metric] = vote.score
        if vote.correction.strip():
            corrections.setdefault(vote.request, []).append(vote.correction)
    return [
        Judged(
            one,
            scores.get(one.id, {}),
            one.id in corrections,
            any(contradicts(text, answers[one.id]) for text in corrections.get(one.id, ())),
            one.id in again,
        )
        for one in requests
    ]


def contradicts(correction: str, answer: str) -> bool:
    """Whether a correction is another answer, and not the same one in other words: with other
    spaces, or as the bare label where the answer has one field."""
    if is_same_text(correction, answer) or is_exact(correction, answer):
        return False
    return list((parse_object(answer) or {}).values()) != [correction.strip()]
