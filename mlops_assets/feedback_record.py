"""What a user said of an answer, as the gateway keeps it.

It stands beside the request's record because serving writes it and monitoring reads it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

logger = logging.getLogger(__name__)

RATING = "rating"
"""What a vote is about unless it says otherwise: whether the answer was good."""


@dataclass(frozen=True, kw_only=True)
class FeedbackRecord:
    """One vote, with what the request's record says of who answered."""

    id: str
    timestamp: str
    """ISO 8601 in UTC."""
    request: str
    """Id of the request."""
    asked: str = ""
    """The request's own time."""
    metric: str = RATING
    """What was scored: the rating, or what a business counts, such as ``resolved``."""
    score: float
    """In [0, 1]; thumbs are 0 and 1."""
    correction: str = ""
    """The answer that would have been right."""
    comment: str = ""
    tenant: str = ""
    user: str = ""
    """As in the request's record: who asked is who votes."""
    feature: str = ""
    release: str = ""
    """Digest of the bundle that answered."""
    arm: str = ""
    experiment: Mapping[str, str] = field(default_factory=dict)
    """Variant of each experiment that the request took part in, by its name."""


_RECORD = TypeAdapter(FeedbackRecord)


def read_feedback(directory: Path) -> Iterator[FeedbackRecord]:
    """Every vote in the segments of a directory, oldest first; a torn line is passed over."""
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as stream:
            for line in stream:
                try:
                    yield _RECORD.validate_json(line)
                except ValidationError:
                    logger.warning("a line of %s is no vote", path)


def last_votes(records: Iterable[FeedbackRecord], metric: str = RATING) -> list[FeedbackRecord]:
    """The vote on each request that counts, in the order in which requests were first voted on: a
    user who votes again takes back the vote before."""
    votes = (record for record in records if record.metric == metric)
    return list({record.request: record for record in votes}.values())
