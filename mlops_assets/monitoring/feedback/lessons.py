"""What people say that answers should have been: corrections by users, labels by people.

A thumb and an answer that was asked for again say that an answer was good or bad, not what would
have been right: they are counted, and are no lesson.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlops_assets.feedback_record import RATING, FeedbackRecord
from mlops_assets.monitoring.quality.label_store import Label
from mlops_assets.refs import Message

CORRECTION, LABEL = "correction", "label"
THUMB_UP, THUMB_DOWN, SCORE, REGENERATION = "thumb_up", "thumb_down", "score", "regeneration"
KINDS = {
    CORRECTION: "a user says what the answer should have been",
    LABEL: "a person who did not see the answer says what it should have been",
    THUMB_UP: "a user found the answer good",
    THUMB_DOWN: "a user found the answer bad",
    SCORE: "a value of another metric",
    REGENERATION: "a user asked the same again at once",
}
GOOD = 0.5  # from this score on a rating is a thumb up


@dataclass(frozen=True)
class Lesson:
    """The right answer to a request, as one person sees it."""

    kind: str
    person: str
    """Who says so: tenant and hash of the user, or ``label:`` and the labeller's name."""
    tenant: str
    """Of the person; empty for labellers."""
    time: str
    """When it was said, ISO 8601 in UTC."""
    request: str
    answer: str
    release: str = ""
    """Digest of the bundle that had answered."""
    asked: str = ""
    """Time of the request, ISO 8601 in UTC."""
    user: str = ""
    """Hash of who asked: what this person wrote stays in one split."""
    messages: tuple[Message, ...] = ()
    slices: tuple[tuple[str, str], ...] = ()
    answers: tuple[str, ...] = ()
    """What models of ours answered to the same messages: first to this request, then whatever
    else this may repeat."""


@dataclass(frozen=True)
class Signal:
    """That an answer was good or bad, as somebody showed."""

    kind: str
    person: str
    """Tenant and hash of the user."""
    time: str
    """ISO 8601 in UTC."""
    request: str
    release: str
    """Digest of the bundle that had answered."""
    metric: str = ""
    score: float | None = None
    again: str = ""
    """Id of the request that asked for another answer."""


@dataclass(frozen=True)
class Given:
    """What the votes and labels say."""

    lessons: tuple[Lesson, ...]
    """In order of time; the request is still unknown to them."""
    taken_back: Mapping[str, int]
    """Votes that their user gave again, by kind."""
    signals: tuple[Signal, ...]
    """What is no lesson, in order of time."""
    requests: frozenset[str]
    """All that anybody said anything of."""


def gather(votes: Sequence[FeedbackRecord], labels: Sequence[Label]) -> Given:
    """Sort what people said. Of several votes on a request and metric the last counts."""
    last = {(vote.request, vote.metric): vote.id for vote in votes}
    standing = [vote for vote in votes if last[vote.request, vote.metric] == vote.id]
    corrections = [vote for vote in standing if vote.correction.strip()]
    lessons = [*map(_correction, corrections), *map(_label, labels)]
    earlier = [vote for vote in votes if last[vote.request, vote.metric] != vote.id]
    return Given(
        tuple(sorted(lessons, key=order)),
        dict(Counter(map(_kind, earlier))),
        tuple(_signal(vote) for vote in standing if _kind(vote) != CORRECTION),
        frozenset({vote.request for vote in votes} | {label.request for label in labels}),
    )


def order(lesson: Lesson) -> tuple[str, str, str, str]:
    """Lessons count in this order: what was said first stays."""
    return lesson.time, lesson.request, lesson.person, lesson.kind


def _kind(vote: FeedbackRecord) -> str:
    if vote.correction.strip():
        return CORRECTION
    if vote.metric != RATING:
        return SCORE
    return THUMB_UP if vote.score >= GOOD else THUMB_DOWN


def _signal(vote: FeedbackRecord) -> Signal:
    person = f"{vote.tenant}/{vote.user}"
    said = vote.timestamp, vote.request, vote.release
    return Signal(_kind(vote), person, *said, metric=vote.metric, score=vote.score)


def _correction(vote: FeedbackRecord) -> Lesson:
    person = f"{vote.tenant}/{vote.user}"
    return Lesson(
        CORRECTION,
        person,
        vote.tenant,
        vote.timestamp,
        vote.request,
        vote.correction,
        vote.release,
    )


def _label(label: Label) -> Lesson:
    person = f"label:{label.person}"
    return Lesson(LABEL, person, "", label.at, label.request, label.label, label.release)
